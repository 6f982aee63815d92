"""How one picture of a view becomes bytes, and back: lossless WebP, with a transform where it pays.

docs/reference/dataset-format.md states the formulas and the precision, docs/notes/encoding.md why.
"""

import functools
import io

import cv2
import numpy as np
from jaxtyping import Float32, Int32, Shaped, UInt8, UInt16
from PIL import Image

from core.errors import WorkFailed

__all__ = [
    "decode_depth",
    "decode_normal",
    "decode_normal_codes",
    "decode_rgba",
    "encode_depth",
    "encode_normal",
    "encode_rgba",
    "largest_depth",
    "normal_table",
]

_LEVELS = 65535
_SIGN = 128
"""Added to depth's differences, so that small ones of either sign leave the high byte 0."""
_TO_RGBA = {3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}
_MIDDLE, _STEPS = 128, 127
"""An octahedral coordinate in [-1, 1] is stored as 128 + 127 times itself; 0 means none."""


def largest_depth(depth_scale: float) -> float:
    """The largest depth that can be stored at this scale, in world units."""
    return _LEVELS * depth_scale


def encode_rgba(rgba: UInt8[np.ndarray, "h w 4"]) -> bytes:
    """Without any loss, also of the colour under zero alpha."""
    return _webp(rgba, method=2)


def decode_rgba(data: bytes) -> UInt8[np.ndarray, "h w 4"]:
    """sRGB with straight alpha. Raises ValueError if it is no picture."""
    pixels = _pixels(data)
    # One that is opaque everywhere may be stored without alpha.
    return cv2.cvtColor(pixels, _TO_RGBA[pixels.shape[2]])


def encode_depth(depth: Float32[np.ndarray, "h w"], depth_scale: float) -> bytes:
    """Exact to half of `depth_scale`; only 0 becomes 0. Raises WorkFailed if it is out of range.

    Stored is how each level differs from the plane through its left and upper neighbours, which
    smooth surfaces follow to a few steps: d[y, x] - d[y, x-1] - d[y-1, x] + d[y-1, x-1].
    """
    nearest, farthest = depth.min(initial=0), depth.max(initial=0)
    if not (nearest >= 0 and farthest <= largest_depth(depth_scale)):  # or no number at all
        raise WorkFailed(
            f"depth from {nearest:g} to {farthest:g} does not lie between 0 and "
            f"{largest_depth(depth_scale):g}, the range of depth_scale {depth_scale:g}"
        )
    # What is nearer than half a step stays apart from the background.
    levels = np.maximum(np.rint(depth / depth_scale), depth > 0).astype(np.uint16)
    steps = levels.copy()
    steps[:, 1:] -= levels[:, :-1]
    steps[1:] -= steps[:-1].copy()
    steps += np.uint16(_SIGN)
    return _webp(np.dstack([steps >> 8, steps & 255, np.zeros_like(steps)]), method=1)


def decode_depth(data: bytes, depth_scale: float) -> Float32[np.ndarray, "h w"]:
    """Planar depth in world units, 0 for background. Raises ValueError if it is no picture."""
    high, low = (cv2.integral(byte)[1:, 1:] for byte in _two_bytes(data))
    # Only modulo 65536 do the sums mean anything.
    levels: UInt16[np.ndarray, "h w"] = high.astype(np.uint16)
    levels <<= 8
    levels += low.astype(np.uint16)
    levels -= _summed_signs(*levels.shape)
    return np.multiply(levels, np.float32(depth_scale), dtype=np.float32)


def encode_normal(normals: Float32[np.ndarray, "h w 3"]) -> bytes:
    """Exact to 0.65 degrees; zero stays zero. Raises WorkFailed if one is no number.

    Two bytes of octahedral coordinates, those of the four around that give the direction closest
    to the normal: Cigolle et al., "A Survey of Efficient Representations for Independent Unit
    Vectors" (JCGT 2014), oct16P.
    """
    if not np.isfinite(normals).all():
        raise WorkFailed("normals are no numbers")
    hit = (normals[..., 0] != 0) | (normals[..., 1] != 0) | (normals[..., 2] != 0)
    pixels = np.zeros(normals.shape, np.uint8)
    pixels[hit, 0], pixels[hit, 1] = _closest_octahedral(normals[hit])
    return _webp(pixels, method=1)


def decode_normal(data: bytes) -> Float32[np.ndarray, "h w 3"]:
    """Unit normals in world axes, zero for none. Raises ValueError if it is no picture."""
    return normal_table().take(decode_normal_codes(data), axis=0)


def decode_normal_codes(data: bytes) -> Int32[np.ndarray, "h w"]:
    """Rows of `normal_table`, 0 for none. Raises ValueError if it is no picture."""
    first, second = _two_bytes(data)
    codes = first.astype(np.int32)
    codes <<= 8
    codes |= second
    return codes


def _closest_octahedral(
    normals: Float32[np.ndarray, "n 3"],
) -> tuple[UInt8[np.ndarray, "n"], UInt8[np.ndarray, "n"]]:
    """The pair of bytes whose direction is the closest of the four around each normal."""
    unit = np.ascontiguousarray(normals.T)
    unit = unit / np.sqrt(np.square(unit).sum(axis=0))
    x, y, z = unit / np.abs(unit).sum(axis=0)
    below = z < 0  # the lower half lies outside the diamond |u| + |v| = 1
    u = np.where(below, np.copysign(1 - np.abs(y), x), x)
    v = np.where(below, np.copysign(1 - np.abs(x), y), y)
    left, upper = ((_MIDDLE + _STEPS * w).astype(np.int32).clip(1, 254) for w in (u, v))
    corner = left << 8 | upper
    best, least = corner, np.full(len(normals), np.inf, np.float32)
    table = np.ascontiguousarray(normal_table().T)
    for code in (corner, corner + 1, corner + 256, corner + 257):
        error = sum(np.square(table[axis].take(code) - unit[axis]) for axis in range(3))
        best = np.where(error < least, code, best)
        least = np.minimum(error, least)
    return (best >> 8).astype(np.uint8), (best & 255).astype(np.uint8)


@functools.cache
def normal_table() -> Float32[np.ndarray, "65536 3"]:
    """The normal of every pair of bytes, at 256 times the first plus the second."""
    u, v = (np.indices((256, 256)).reshape(2, -1) - _MIDDLE) / _STEPS
    z = 1 - np.abs(u) - np.abs(v)
    fold = np.maximum(-z, 0)
    normals = np.stack([u - np.copysign(fold, u), v - np.copysign(fold, v), z], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[0] = 0
    return normals.astype(np.float32)


def _webp(pixels: Shaped[np.ndarray, "h w c"], method: int) -> bytes:
    """Lossless. The method (0 to 6) trades the encoder's time for size, and so does the quality:
    from 30 on the encoder does what gains most, and higher ones gain next to nothing.
    """
    out = io.BytesIO()
    picture = Image.fromarray(pixels.astype(np.uint8))
    # `exact` keeps the colour below a zero alpha: the round trip has no exceptions.
    picture.save(out, "WEBP", lossless=True, method=method, quality=30, exact=True)
    return out.getvalue()


def _pixels(data: bytes) -> UInt8[np.ndarray, "h w c"]:
    """In OpenCV's order, blue first."""
    # Pillow takes 1.4 times as long, over a decoder for animations.
    pixels = None
    if data[:4] == b"RIFF":
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3:
        raise ValueError("no WebP picture, or a damaged one")
    return pixels


def _two_bytes(data: bytes) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """Red and green."""
    pixels = _pixels(data)
    red, green = (cv2.extractChannel(pixels, channel) for channel in (2, 1))
    return red, green


@functools.lru_cache(maxsize=4)
def _summed_signs(height: int, width: int) -> UInt16[np.ndarray, "h w"]:
    """What `_SIGN` adds up to over all pixels above and to the left, modulo 65536."""
    rows, columns = np.arange(1, height + 1)[:, None], np.arange(1, width + 1)
    return (_SIGN * rows * columns).astype(np.uint16)
