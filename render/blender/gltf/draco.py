"""How many triangles a Draco-compressed mesh holds by its own header, without decoding it.

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
    """The number that the decoder will believe, None if it cannot be told.

    glTF's own counts of a compressed mesh are a mere claim.
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
    """A number in groups of seven bits, the lowest first, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80 or shift > 28:
            return value, place
