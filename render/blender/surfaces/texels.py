"""Lookup of texels: the values that a texture shows at texture coordinates."""

import numpy as np
from jaxtyping import Float32, Float64, Int64

from render.blender.surfaces.alpha_texture import CLAMP, MIRROR

__all__ = ["linear_from_srgb", "nearest_texels"]


def nearest_texels(
    image: Float32[np.ndarray, "h w 4"],
    coordinates: Float64[np.ndarray, "n 2"],
    wrap_s: int,
    wrap_t: int,
) -> Float32[np.ndarray, "n 4"]:
    """Return the texels around texture coordinates; coordinates that are not finite count as 0.

    `image` begins with its top row, and v points downwards as in glTF.
    """
    height, width = image.shape[:2]
    columns = _wrapped(coordinates[:, 0], width, wrap_s)
    return image[_wrapped(coordinates[:, 1], height, wrap_t), columns]


def linear_from_srgb(srgb: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
    """Return linear values by the curve of IEC 61966-2-1."""
    high = ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4
    return np.where(srgb <= 0.04045, srgb / 12.92, high).astype(np.float32)


def _wrapped(coordinate: np.ndarray, size: int, wrap: int) -> Int64[np.ndarray, "n"]:
    """Return the texel of the image, along one axis, that the sampler reads at a coordinate."""
    place = np.where(np.isfinite(coordinate), coordinate, 0)
    if wrap == MIRROR:
        place = 1 - np.abs(place % 2 - 1)
    elif wrap != CLAMP:
        place = place % 1
    return np.clip(np.floor(place * size), 0, size - 1).astype(np.int64)
