"""Encoding of the pictures of a view as lossless WebP; depth and normals are transformed before.

docs/reference/dataset-format.md has the formulas and the precision, docs/notes/encoding.md the
measurements behind them.
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
"""The largest depth level, of 16 bits."""
_OFFSET = 128
"""Added to differences of depth levels, so that the high byte is 0 for small differences."""
_TO_RGBA = {3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}
_MIDDLE, _STEPS = 128, 127
"""An octahedral coordinate w in [-1, 1] is stored as 128 + 127 w; the byte 0 means no normal."""


def largest_depth(depth_scale: float) -> float:
    """Return the largest depth that can be stored at this scale, in world units."""
    return _LEVELS * depth_scale


def encode_rgba(rgba: UInt8[np.ndarray, "h w 4"]) -> bytes:
    """Encode RGBA losslessly, including the colour where alpha is zero."""
    return _webp(rgba, method=2)


def decode_rgba(data: bytes) -> UInt8[np.ndarray, "h w 4"]:
    """Decode sRGB with straight alpha. Raises ValueError if `data` is not a valid picture."""
    pixels = _pixels(data)
    # A picture that is opaque everywhere may be stored without alpha.
    return cv2.cvtColor(pixels, _TO_RGBA[pixels.shape[2]])


def encode_depth(depth: Float32[np.ndarray, "h w"], depth_scale: float) -> bytes:
    """Encode planar depth with an error of at most half of `depth_scale`; only 0 becomes 0.

    The stored value is the difference of each level from the plane through its left and upper
    neighbours, which is small on smooth surfaces: d[y, x] - d[y, x-1] - d[y-1, x] + d[y-1, x-1].
    Raises WorkFailed if a depth is out of range.
    """
    nearest, farthest = depth.min(initial=0), depth.max(initial=0)
    if not (nearest >= 0 and farthest <= largest_depth(depth_scale)):  # also true for NaN
        raise WorkFailed(
            f"depths from {nearest:g} to {farthest:g} are not all between 0 and "
            f"{largest_depth(depth_scale):g}, the range of depth_scale {depth_scale:g}"
        )
    # A depth below half a step becomes 1, because 0 is the background.
    levels = np.maximum(np.rint(depth / depth_scale), depth > 0).astype(np.uint16)
    steps = levels.copy()
    steps[:, 1:] -= levels[:, :-1]
    steps[1:] -= steps[:-1].copy()
    steps += np.uint16(_OFFSET)
    return _webp(np.dstack([steps >> 8, steps & 255, np.zeros_like(steps)]), method=1)


def decode_depth(data: bytes, depth_scale: float) -> Float32[np.ndarray, "h w"]:
    """Decode planar depth in world units; 0 is background. Raises ValueError for invalid data."""
    high, low = (cv2.integral(byte)[1:, 1:] for byte in _two_bytes(data))
    # The sums are correct modulo 65536.
    levels: UInt16[np.ndarray, "h w"] = high.astype(np.uint16)
    levels <<= 8
    levels += low.astype(np.uint16)
    levels -= _summed_offsets(*levels.shape)
    return np.multiply(levels, np.float32(depth_scale), dtype=np.float32)


def encode_normal(normals: Float32[np.ndarray, "h w 3"]) -> bytes:
    """Encode normals with an error of at most 0.65 degrees; zero stays zero.

    A normal becomes two bytes of octahedral coordinates: of the four neighbouring pairs, the one
    whose direction is closest to the normal (oct16P of Cigolle et al., "A Survey of Efficient
    Representations for Independent Unit Vectors", JCGT 2014). Raises WorkFailed if a normal is not
    finite.
    """
    if not np.isfinite(normals).all():
        raise WorkFailed("normals are not finite")
    hit = (normals[..., 0] != 0) | (normals[..., 1] != 0) | (normals[..., 2] != 0)
    pixels = np.zeros(normals.shape, np.uint8)
    pixels[hit, 0], pixels[hit, 1] = _closest_octahedral(normals[hit])
    return _webp(pixels, method=1)


def decode_normal(data: bytes) -> Float32[np.ndarray, "h w 3"]:
    """Decode unit normals in world axes; zero where there is none. Raises ValueError if invalid."""
    return normal_table().take(decode_normal_codes(data), axis=0)


def decode_normal_codes(data: bytes) -> Int32[np.ndarray, "h w"]:
    """Decode row numbers of `normal_table`; 0 where there is none. Raises ValueError if invalid."""
    first, second = _two_bytes(data)
    codes = first.astype(np.int32)
    codes <<= 8
    codes |= second
    return codes


def _closest_octahedral(
    normals: Float32[np.ndarray, "n 3"],
) -> tuple[UInt8[np.ndarray, "n"], UInt8[np.ndarray, "n"]]:
    """Return the closest of the four neighbouring pairs of bytes for each normal."""
    unit = np.ascontiguousarray(normals.T)
    unit = unit / np.sqrt(np.square(unit).sum(axis=0))
    x, y, z = unit / np.abs(unit).sum(axis=0)
    below = z < 0  # the lower half lies outside the diamond |u| + |v| = 1
    u = np.where(below, np.copysign(1 - np.abs(y), x), x)
    v = np.where(below, np.copysign(1 - np.abs(x), y), y)
    left, upper = ((_MIDDLE + _STEPS * w).astype(np.int32).clip(1, 254) for w in (u, v))
    corner = left << 8 | upper
    best, smallest = corner, np.full(len(normals), np.inf, np.float32)
    table = np.ascontiguousarray(normal_table().T)
    for code in (corner, corner + 1, corner + 256, corner + 257):
        error = sum(np.square(table[axis].take(code) - unit[axis]) for axis in range(3))
        best = np.where(error < smallest, code, best)
        smallest = np.minimum(error, smallest)
    return (best >> 8).astype(np.uint8), (best & 255).astype(np.uint8)


@functools.cache
def normal_table() -> Float32[np.ndarray, "65536 3"]:
    """Return the normal of every pair of bytes; its row is 256 times the first plus the second."""
    u, v = (np.indices((256, 256)).reshape(2, -1) - _MIDDLE) / _STEPS
    z = 1 - np.abs(u) - np.abs(v)
    fold = np.maximum(-z, 0)
    normals = np.stack([u - np.copysign(fold, u), v - np.copysign(fold, v), z], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[0] = 0
    return normals.astype(np.float32)


def _webp(pixels: Shaped[np.ndarray, "h w c"], method: int) -> bytes:
    """Encode pixels as lossless WebP.

    Method (0 to 6) and quality (0 to 100) trade the encoder's time for size. From quality 30 on,
    higher values make hardly any difference.
    """
    out = io.BytesIO()
    picture = Image.fromarray(pixels.astype(np.uint8))
    # `exact` preserves the colour where alpha is zero.
    picture.save(out, "WEBP", lossless=True, method=method, quality=30, exact=True)
    return out.getvalue()


def _pixels(data: bytes) -> UInt8[np.ndarray, "h w c"]:
    """Decode WebP to pixels in OpenCV's order, blue first. Raises ValueError."""
    # Pillow takes 1.4 times as long, because it uses the decoder of animations.
    pixels = None
    if data[:4] == b"RIFF":
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3:
        raise ValueError("not a WebP picture, or a damaged one")
    return pixels


def _two_bytes(data: bytes) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """Decode the red and the green channel."""
    pixels = _pixels(data)
    red, green = (cv2.extractChannel(pixels, channel) for channel in (2, 1))
    return red, green


@functools.lru_cache(maxsize=4)
def _summed_offsets(height: int, width: int) -> UInt16[np.ndarray, "h w"]:
    """Return the sum of `_OFFSET` over all pixels above and to the left, modulo 65536."""
    rows, columns = np.arange(1, height + 1)[:, None], np.arange(1, width + 1)
    return (_OFFSET * rows * columns).astype(np.uint16)
