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
"""The only supported bitstream version; earlier ones, of 2017, have another field order."""


def num_draco_triangles(data: memoryview) -> int | None:
    """Return the number of triangles that the decoder will allocate, or None if it is unknown.

    The decoder does not use the counts in the glTF document.
    """
    try:
        magic, major, minor, kind, method, flags = _HEADER.unpack_from(data)
        if (magic, kind) != (b"DRACO", _MESH) or (major, minor) != _VERSION:
            return None
        if flags & _HAS_METADATA:
            return None
        offset = _HEADER.size
        if method == _EDGEBREAKER:
            _, offset = _varint(data, offset + 1)  # skips the traversal type and vertex count
        return _varint(data, offset)[0]
    except (struct.error, IndexError):
        return None


def _varint(data: memoryview, offset: int) -> tuple[int, int]:
    """Return a LEB128 number (groups of seven bits, lowest first) and the offset of its end."""
    value = shift = 0
    while True:
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80 or shift > 28:
            return value, offset
