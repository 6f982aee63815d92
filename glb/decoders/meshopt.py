"""Compressed buffer views: EXT_meshopt_compression and KHR_meshopt_compression.

Written from the specification of the extensions. The second adds a version of mode ATTRIBUTES and
the filter COLOR to the first; both are decoded for either name.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from glb.decoders import meshopt_filters
from glb.decoders.meshopt_attributes import decode_attributes
from glb.decoders.meshopt_indices import decode_indices, decode_triangles
from glb.glb_error import malformed

__all__ = ["decode_meshopt"]

_Filter = Callable[[NDArray[np.uint8]], NDArray[np.generic]]

_FILTERS: dict[str, tuple[tuple[int, ...], _Filter]] = {
    "OCTAHEDRAL": ((4, 8), meshopt_filters.octahedral),
    "QUATERNION": ((8,), meshopt_filters.quaternion),
    "EXPONENTIAL": (tuple(range(4, 257, 4)), meshopt_filters.exponential),
    "COLOR": ((4, 8), meshopt_filters.colour),
}
"""Valid strides and function of each filter."""


def decode_meshopt(
    data: memoryview, *, count: int, stride: int, mode: str, filter_name: str
) -> memoryview:
    """Return the `count * stride` bytes of a compressed buffer view, which may be changed in place.

    The caller limits `count` and `stride`. Raises GlbError (`malformed`) for data that the
    specification does not allow.
    """
    if mode == "ATTRIBUTES":
        if stride % 4 or not 4 <= stride <= 256:
            raise malformed(f"a stride of {stride} bytes is invalid for mode ATTRIBUTES")
        values: NDArray[np.generic] = _filtered(data, count, stride, filter_name)
    elif mode not in ("TRIANGLES", "INDICES"):
        raise malformed(f"mode {mode[:20]!r} does not exist")
    elif stride not in (2, 4) or filter_name != "NONE" or (mode == "TRIANGLES" and count % 3):
        raise malformed(f"{count} values of {stride} bytes are invalid for mode {mode}")
    else:
        decode = decode_triangles if mode == "TRIANGLES" else decode_indices
        values = decode(data, count).astype(f"<u{stride}")
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _filtered(data: memoryview, count: int, stride: int, name: str) -> NDArray[np.generic]:
    if name == "NONE":
        return decode_attributes(data, count, stride)
    if name not in _FILTERS:
        raise malformed(f"filter {name[:20]!r} does not exist")
    strides, undo = _FILTERS[name]
    if stride not in strides:
        raise malformed(f"a stride of {stride} bytes is invalid for filter {name}")
    return undo(decode_attributes(data, count, stride))
