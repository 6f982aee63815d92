"""Filters of compressed buffer views: stored integers back to unit vectors, rotations and so on.

A result may differ from that of another decoder by one unit, except with the exponential filter.
Values that the specification excludes give arbitrary results.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["colour", "exponential", "octahedral", "quaternion"]

_INT16_MAX = 32767


def octahedral(elements: NDArray[np.uint8]) -> NDArray[np.generic]:
    """Return the unit vectors (n, 4) of elements (n, 4 or 8) as signed normalised integers.

    The fourth component is not filtered.
    """
    dtype = np.dtype(f"<i{elements.shape[1] // 4}")
    stored = elements.view(dtype)
    values = stored.astype(np.float32)
    with np.errstate(all="ignore"):
        x, y = values[:, 0] / values[:, 2], values[:, 1] / values[:, 2]
        z = 1 - np.abs(x) - np.abs(y)
        # The lower half of the octahedron is folded outward.
        fold = np.minimum(z, 0)
        x, y = x - np.copysign(fold, x), y - np.copysign(fold, y)
        vectors = np.stack([x, y, z], axis=1)
        vectors /= np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    limit = np.iinfo(dtype).max
    return np.column_stack([_rounded(vectors * limit, -limit, limit).astype(dtype), stored[:, 3]])


def quaternion(elements: NDArray[np.uint8]) -> NDArray[np.generic]:
    """Return the unit quaternions (n, 4) of elements (n, 8) as signed normalised integers."""
    stored = elements.view("<i2")
    one = (stored[:, 3:] | 3).astype(np.float32)
    with np.errstate(all="ignore"):
        small = stored[:, :3] / one * np.float32(np.sqrt(0.5))
        largest = np.sqrt(np.maximum(0, 1 - (small * small).sum(axis=1, keepdims=True)))
    parts = _rounded(np.hstack([largest, small]) * _INT16_MAX, -_INT16_MAX, _INT16_MAX)
    result = np.empty(stored.shape, "<i2")
    places = (stored[:, 3:] & 3) + np.arange(4) & 3
    np.put_along_axis(result, places, parts.astype("<i2"), axis=1)
    return result


def exponential(elements: NDArray[np.uint8]) -> NDArray[np.generic]:
    """Return the floats (n, k) of elements (n, 4 k): a mantissa of 24 bits, an exponent of 8."""
    stored = elements.view("<i4")
    mantissa = (stored << 8 >> 8).astype("<f4")
    with np.errstate(all="ignore"):
        return np.ldexp(mantissa, stored >> 24)


def colour(elements: NDArray[np.uint8]) -> NDArray[np.generic]:
    """Return the colours (n, 4) of elements (n, 4 or 8) as unsigned normalised integers.

    They are stored as luma, two differences and alpha (YCoCg); the highest bit of alpha gives the
    number of bits.
    """
    dtype = np.dtype(f"<u{elements.shape[1] // 4}")
    y, alpha = (elements.view(dtype)[:, part].astype(np.int64) for part in (0, 3))
    orange, green = elements.view(dtype.str.replace("u", "i"))[:, 1:3].astype(np.int64).T
    largest = (1 << np.frexp(alpha)[1].astype(np.int64)) - 1
    alpha &= largest >> 1
    parts = np.stack(
        [y + orange - green, y + green, y - orange - green, alpha << 1 | alpha & 1], axis=1
    )
    limit = np.iinfo(dtype).max
    with np.errstate(all="ignore"):
        scaled = parts * (limit / largest[:, None].astype(np.float32))
    return _rounded(scaled, 0, limit).astype(dtype)


def _rounded(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """Return the nearest integers, halves away from zero, within bounds; 0 for NaN."""
    rounded = np.trunc(values + np.copysign(np.float32(0.5), values))
    return np.clip(np.nan_to_num(rounded, nan=0, posinf=high, neginf=low), low, high)
