"""The header of a Draco-compressed mesh: the number of its triangles, without decoding it.

Draco bitstream specification, sections 3 and 5.
"""

import struct

__all__ = ["num_draco_triangles"]

_HEADER = struct.Struct("<5sBBBBH")
_MESH = 1
_EDGEBREAKER = 1
_HAS_METADATA = 0x8000
_VERSION = (2, 2)
"""Earlier ones, of 2017, order the numbers otherwise."""


def num_draco_triangles(data: memoryview) -> int | None:
    """Return the number of triangles that the decoder will allocate; None if it is not certain.

    The counts in the glTF document are not what the decoder uses.
    """
    try:
        magic, major, minor, kind, method, flags = _HEADER.unpack_from(data)
        if (magic, kind) != (b"DRACO", _MESH) or (major, minor) != _VERSION:
            return None
        if flags & _HAS_METADATA:
            return None
        place = _HEADER.size
        if method == _EDGEBREAKER:
            _, place = _varint(data, place + 1)  # the kind of traversal, and the vertices
        return _varint(data, place)[0]
    except (struct.error, IndexError):
        return None


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """Return a number in groups of seven bits, the lowest first, and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80 or shift > 28:
            return value, place
