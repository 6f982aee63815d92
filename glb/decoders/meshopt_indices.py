"""Modes TRIANGLES and INDICES of compressed buffer views."""

from array import array
from collections import deque

import numpy as np
from numpy.typing import NDArray

from glb.glb_error import malformed

__all__ = ["decode_indices", "decode_triangles"]

_TRIANGLES, _INDICES = 0xE1, 0xD1
"""First bytes of the streams."""
_TABLE_BYTES, _PADDING_BYTES = 16, 4
"""Sizes of the tails of the two modes."""
_MASK = 0xFFFFFFFF
_MAX_VARINT = 5
"""Bytes of a 32-bit number in groups of seven bits."""
_INDICES_AT_ONCE = 1 << 20
"""Indices that are decoded together, which bounds the memory for it."""
_UNWRITTEN = -1
"""An entry that was never written; it is no index, so an array of unsigned numbers rejects it."""


def decode_indices(data: memoryview, count: int) -> NDArray[np.uint32]:
    """Return the indices (count,) of a stream of mode INDICES. Raises GlbError (`malformed`)."""
    stream = np.frombuffer(data, np.uint8)
    if len(stream) < 1 + _PADDING_BYTES or stream[0] != _INDICES:
        raise malformed("the data are not those of mode INDICES")
    stream = stream[1:-_PADDING_BYTES]
    ends = np.flatnonzero(stream < 0x80)
    if len(ends) != count or (count and ends[-1] != len(stream) - 1) or (not count and len(stream)):
        raise malformed(f"the data are not those of {count} indices")
    indices = np.empty(count, np.uint32)
    last = [np.uint32(0), np.uint32(0)]
    for first in range(0, count, _INDICES_AT_ONCE):
        part = ends[first : first + _INDICES_AT_ONCE]
        start = ends[first - 1] + 1 if first else 0
        codes = _varints(stream[start : part[-1] + 1], part - start)
        deltas = codes >> np.uint32(2) ^ (~(codes >> np.uint32(1) & np.uint32(1)) + np.uint32(1))
        for baseline in (0, 1):
            chosen = codes & np.uint32(1) == baseline
            values = np.cumsum(deltas[chosen], dtype=np.uint32) + last[baseline]
            indices[first : first + len(part)][chosen] = values
            last[baseline] = values[-1] if len(values) else last[baseline]
    return indices


def _varints(stream: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return numbers (n,) in groups of seven bits, lowest first, from the positions of the ends."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _MAX_VARINT:
        raise malformed("an index has too many bytes")
    codes = np.zeros(len(ends), np.uint32)
    for place in range(int(sizes.max())):
        longer = np.flatnonzero(sizes > place)
        group = stream[starts[longer] + place].astype(np.uint32) & np.uint32(0x7F)
        codes[longer] |= group << np.uint32(7 * place)
    return codes


def decode_triangles(data: memoryview, count: int) -> NDArray[np.uint32]:
    """Return the indices (count,) of a stream of mode TRIANGLES. Raises GlbError (`malformed`)."""
    stream = bytes(data)
    start = 1 + count // 3
    if not stream or stream[0] != _TRIANGLES or start + _TABLE_BYTES > len(stream):
        raise malformed(f"the data are not those of {count // 3} triangles")
    table = stream[-_TABLE_BYTES:]
    if any(table[14:]) or any(byte >> 4 == 15 or byte & 15 == 15 for byte in table):
        raise malformed("the table of triangle codes is invalid")
    reader = _TriangleReader(stream, start, table)
    try:
        indices = reader.read(stream[1:start])
    except OverflowError:
        raise malformed("a triangle refers to one that does not exist") from None
    except IndexError:
        raise malformed("the data end before the last triangle") from None
    if reader.offset != len(stream) - _TABLE_BYTES:
        raise malformed(f"the data are not those of {count // 3} triangles")
    return np.frombuffer(indices, np.uint32)


class _TriangleReader:
    """The state of the decoder: the last 16 edges and vertices, and the next and last index."""

    def __init__(self, stream: bytes, offset: int, table: bytes) -> None:
        self.stream, self.offset, self.table = stream, offset, table
        self.next = self.last = 0
        unwritten = (_UNWRITTEN, _UNWRITTEN)
        self.edges: deque[tuple[int, int]] = deque([unwritten] * 16, maxlen=16)
        self.vertices: deque[int] = deque([_UNWRITTEN] * 16, maxlen=16)

    def read(self, codes: bytes) -> "array[int]":
        """Return three indices for each code. Raises OverflowError and IndexError."""
        indices = array("I")
        edges, vertices = self.edges, self.vertices
        for code in codes:
            if code >= 0xF0:
                a, b, c = self._read_corners(code & 15)
                edges.appendleft((b, a))
            else:
                a, b = edges[code >> 4]
                kind = code & 15
                if kind == 0:
                    c = self.next
                    self.next += 1
                else:
                    c = vertices[kind] if kind < 13 else self._near_last(kind)
                if kind == 0 or kind >= 13:
                    vertices.appendleft(c)
            edges.appendleft((c, b))
            edges.appendleft((a, c))
            indices.extend((a, b, c))
        return indices

    def _read_corners(self, kind: int) -> tuple[int, int, int]:
        """Return the indices of a triangle that shares no edge with one of the last."""
        if kind < 14:
            pair, first = self.table[kind], 0
        else:
            pair, first = self.stream[self.offset], 15 * (kind - 14)
            self.offset += 1
            if not pair:
                self.next = 0
        parts = first, pair >> 4, pair & 15
        corners = [self._corner(part) for part in parts]
        new = (corner for corner, part in zip(corners, parts, strict=True) if part in (0, 15))
        self.vertices.extendleft(new)
        return corners[0], corners[1], corners[2]

    def _corner(self, part: int) -> int:
        if part == 0:
            self.next += 1
            return self.next - 1
        return self._near_last(part) if part == 15 else self.vertices[part - 1]

    def _near_last(self, kind: int) -> int:
        """Return the index before or after the last one, or one that is stored."""
        if kind < 15:
            delta = 1 if kind == 14 else -1
        else:
            code = self._varint()
            delta = ~(code >> 1) if code & 1 else code >> 1
        self.last = self.last + delta & _MASK
        return self.last

    def _varint(self) -> int:
        """Read a number of one to five bytes, the lowest seven bits first."""
        value = 0
        for place in range(_MAX_VARINT):
            byte = self.stream[self.offset]
            self.offset += 1
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value & _MASK
        raise malformed("an index has too many bytes")
