"""Resizing of view images: filtered for colour and alpha, nearest for depth and normals."""

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["resize"]

_MODES = {
    "rgb": "bilinear",
    "alpha": "bilinear",
    # A mean of depths or normals across a silhouette belongs to no surface.
    "depth": "nearest-exact",
    "normals": "nearest-exact",
}
_PUBLISHED_MODES = {"rgb": "bicubic", "alpha": "nearest", "depth": "nearest", "normals": "bicubic"}
_IN_UNIT_RANGE = ("rgb", "alpha")


def resize(
    pictures: Mapping[str, Float[Tensor, "v _ h w"]], side: int, *, published: bool = False
) -> dict[str, Float[Tensor, "v _ s s"]]:
    """Return images resized to a square of `side` pixels; names are rgb, alpha, depth, normals.

    Colour and alpha are filtered; depth and normals are those of the pixel at the new centre.
    `published`: as the released code does, with bicubic normals that are not renormalised, and
    alpha and depth of the pixel at the new pixel's upper left corner.
    """
    modes = _PUBLISHED_MODES if published else _MODES
    return {name: _resized(values, side, name, modes[name]) for name, values in pictures.items()}


def _resized(values: Tensor, side: int, name: str, mode: str) -> Tensor:
    if values.shape[-2:] == (side, side):
        return values
    resized = F.interpolate(values, (side, side), mode=mode, antialias=not mode.startswith("near"))
    return resized.clamp(0, 1) if name in _IN_UNIT_RANGE else resized
