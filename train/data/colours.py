"""Colours of views on white, kept in eight bits until the last conversion.

Renders have eight bits per channel. Resizing them takes a tenth of the time that floats take, and
only the pixels that a step uses are converted to floats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from train.data.resize import resize
from train.models.lrm.rays import Window

__all__ = ["Colours", "composite"]

_ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Colours:
    """Colours and alpha of some views; they are resized, cropped, and converted to floats last."""

    pixels: Shaped[Tensor, "v h w 4"]
    """Eight bits with colours premultiplied by alpha, so that the colour of transparent pixels does
    not bleed over an edge; with `published`, floats on white."""

    @classmethod
    def of(cls, pictures: Sequence[UInt8[np.ndarray, "h w 4"]], *, published: bool = False) -> Self:
        """Create from RGBA images with straight alpha.

        `published`: composite on white in floats first, as the released code does. Raises
        ValueError if the images differ in size.
        """
        for picture in pictures:
            if picture.shape != pictures[0].shape:
                raise ValueError(
                    f"views differ in size: {pictures[0].shape[:2]} and {picture.shape[:2]} pixels"
                )
        if published:
            return cls(torch.cat(composite(pictures), dim=1).permute(0, 2, 3, 1))
        pixels = torch.empty(len(pictures), *pictures[0].shape, dtype=torch.uint8)
        for view, picture in zip(pixels.numpy(), pictures, strict=True):
            cv2.cvtColor(picture, cv2.COLOR_RGBA2mRGBA, dst=view)
        return cls(pixels)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def resized(self, side: int, some: slice = _ALL) -> Self:
        """Return some of the views, resized to a square of `side` pixels.

        Bilinear with antialiasing; for float pixels as `resize` does with `published`.
        """
        planes = self.pixels[some].permute(0, 3, 1, 2)
        if planes.is_floating_point():
            pictures = {"rgb": planes[:, :3], "alpha": planes[:, 3:]}
            planes = torch.cat([*resize(pictures, side, published=True).values()], dim=1)
        elif self.size != (side, side):
            planes = F.interpolate(planes, (side, side), mode="bilinear", antialias=True)
        return type(self)(planes.permute(0, 2, 3, 1))

    def cropped(self, windows: Sequence[Window]) -> Self:
        """Return one window of each view; all windows have the same size."""
        views = zip(self.pixels, windows, strict=True)
        return type(self)(
            torch.stack(
                [
                    view[top : top + height, left : left + width]
                    for view, (top, left, height, width) in views
                ]
            )
        )

    def floats(self) -> tuple[Float[Tensor, "v 3 h w"], Float[Tensor, "v 1 h w"]]:
        """Return RGB on white, and alpha, both in [0, 1]."""
        if self.pixels.is_floating_point():
            planes = self.pixels.permute(0, 3, 1, 2)
            return planes[:, :3], planes[:, 3:]
        # Two separate tensors: the C library returns blocks above 32 MiB to the system at once, and
        # allocating them again would take longer than the conversion itself.
        rgb = torch.empty(len(self.pixels), 3, *self.size)
        alpha = torch.empty(len(self.pixels), 1, *self.size)
        for view_rgb, view_alpha, view in zip(rgb, alpha, self.pixels.numpy(), strict=True):
            *channels, opacity = cv2.split(view)
            background = cv2.bitwise_not(opacity)
            for plane, channel in zip(view_rgb, channels, strict=True):
                _to_unit(plane, cv2.add(channel, background))
            _to_unit(view_alpha[0], opacity)
        return rgb, alpha


def composite(
    pictures: Sequence[UInt8[np.ndarray, "h w 4"]],
) -> tuple[Float[Tensor, "v 3 h w"], Float[Tensor, "v 1 h w"]]:
    """Return RGB on white, rgb alpha + (1 - alpha), and alpha, in [0, 1], computed in floats."""
    height, width, _ = pictures[0].shape
    # One view at a time, plane by plane, stays in the processor's cache: a third of the time.
    planes = torch.empty(len(pictures), 4, height, width)
    for view, pixels in zip(planes, pictures, strict=True):
        view.copy_(torch.from_numpy(pixels.transpose(2, 0, 1).copy())).div_(255)
        view[:3].mul_(view[3:]).add_(1 - view[3:])
    return planes[:, :3], planes[:, 3:]


def _to_unit(plane: Float[Tensor, "h w"], levels: UInt8[np.ndarray, "h w"]) -> None:
    plane.copy_(torch.from_numpy(levels)).div_(255)
