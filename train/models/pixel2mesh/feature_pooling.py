"""Features of a picture at the places where points of a mesh are seen (perceptual pooling)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from train.models.pixel2mesh.image_encoders import Grid

__all__ = ["MIN_DEPTH", "PublishedPooling", "pool_features", "project"]

PublishedPooling = Literal["align_corners", "half_pixel", "tensorflow"]
"""How published code pools features: as the PyTorch port did with PyTorch 1.1 (which trained its
weights), as the port does today, and as the TensorFlow code does."""
MIN_DEPTH = 1e-2
"""Smallest depth of a point in camera units; nothing keeps a mesh in front of the camera."""


def project(
    points: Float[Tensor, "b v 3"], intrinsics: Float[Tensor, "b 4"]
) -> Float[Tensor, "b v 2"]:
    """Return where camera-frame points are seen: x to the right, y down, [0, 1] in the picture.

    `intrinsics` are fx, fy, cx, cy over the picture's size; the camera looks along -z.
    """
    fx, fy, cx, cy = intrinsics[:, None].unbind(-1)
    x, y, z = points.unbind(-1)
    depth = (-z).clamp(min=MIN_DEPTH)
    return torch.stack([cx + fx * x / depth, cy - fy * y / depth], dim=-1)


def pool_features(
    maps: Sequence[Float[Tensor, "b _ _ _"]],
    grids: Sequence[Grid],
    coordinates: Float[Tensor, "b v 2"],
    image_size: int,
    published: PublishedPooling | None = None,
) -> Float[Tensor, "b v c"]:
    """Return the features of all maps at image coordinates (from `project`), interpolated.

    `maps` are those of square pictures of `image_size` pixels. The value at a coordinate is that of
    the pixel there: `grids` state which pixel each cell has its centre at. Outside of the outermost
    centres, the nearest position between them counts. A published convention ignores the grids, and
    finds other places, up to a cell away.
    """
    pooled = []
    for features, grid in zip(maps, grids, strict=True):
        size = features.shape[-1]
        cells = _cells(coordinates, grid, size, image_size, published)
        values = F.grid_sample(
            features.to(cells.dtype),
            ((2 * cells + 1) / size - 1)[:, None],
            padding_mode="zeros" if published == "half_pixel" else "border",
            align_corners=False,
        )
        values = values[:, :, 0].transpose(1, 2)
        if published == "tensorflow":
            # Its weights are products of distances to the integers below and above.
            values = values * (cells != cells.round()).all(dim=-1, keepdim=True)
        pooled.append(values.to(features.dtype))
    return torch.cat(pooled, dim=-1)


def _cells(
    coordinates: Float[Tensor, "b v 2"],
    grid: Grid,
    size: int,
    image_size: int,
    published: PublishedPooling | None,
) -> Float[Tensor, "b v 2"]:
    """Return the positions of image coordinates in a map with `size` cells per side, in cells."""
    pixels = coordinates * image_size - 0.5
    if published is None:
        stride, offset = grid
        return (pixels - offset) / stride
    if published == "tensorflow":
        # Its principal point is 112 of 224 for a centred camera: half a pixel beside the index.
        return (coordinates * size).clamp(0, size - 1)
    along = (pixels / (image_size - 1)).clamp(0, 1)
    return along * (size - 1) if published == "align_corners" else along * size - 0.5
