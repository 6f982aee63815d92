"""Mode ATTRIBUTES of compressed buffer views: vertex attributes as packed differences of bytes.

The position of each packed group follows from the one before it, so they are found one by one; the
groups are then unpacked together.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from glb.glb_error import malformed

__all__ = ["decode_attributes"]

_GROUP = 16
"""Elements of a group."""
_MAX_BLOCK_BYTES, _MAX_BLOCK_ELEMENTS = 8192, 256
_GROUPS_AT_ONCE = 1 << 16
"""Groups that are unpacked together, which bounds the memory for their positions."""
_MIN_TAIL = {0: 32, 1: 24}
"""Minimum size of the tail by version, in bytes."""
_BITS_V0 = (0, 2, 4, 8)
_BITS_V1 = ((0, 1, 2, 4), (1, 2, 4, 8))
"""Bits of a value by the code of its group; in version 1 also by the control code of the byte."""
_ALL_ZERO, _LITERAL = 2, 3
"""The other control codes of version 1."""
_CODES = tuple(tuple(byte >> shift & 3 for shift in (0, 2, 4, 6)) for byte in range(256))
"""The four 2-bit codes in a byte."""
_SHIFTS = {1: tuple(range(8)), 2: (6, 4, 2, 0), 4: (4, 0)}
"""Positions of the values in a byte, by their number of bits."""


def decode_attributes(data: memoryview, count: int, stride: int) -> NDArray[np.uint8]:
    """Return the elements (count, stride) of a stream. Raises GlbError (`malformed`)."""
    stream = _Stream(data, stride)
    values = np.empty((count, stride), np.uint8)
    size = min(_MAX_BLOCK_BYTES // stride // _GROUP * _GROUP, _MAX_BLOCK_ELEMENTS)
    blocks_at_once = max(1, _GROUPS_AT_ONCE // (stride * size // _GROUP))
    start = 0
    while start < count:
        blocks = min(max(1, (count - start) // size), blocks_at_once)
        end = start + min(count - start, blocks * size)
        deltas = stream.read_blocks(blocks, (end - start) // blocks)
        values[start:end] = stream.add_up(deltas)
        start = end
    if stream.offset != stream.end:
        raise malformed("the data continue after the last element")
    return values


class _Stream:
    """The bytes of a stream, the position in it, and the element that was decoded last."""

    def __init__(self, data: memoryview, stride: int) -> None:
        self.data, self.stride = bytes(data), stride
        self.version = (self.data[0] if self.data else 0) - 0xA0
        if self.version not in _MIN_TAIL:
            raise malformed("the data are not those of mode ATTRIBUTES")
        num_channels = stride // 4 if self.version else 0
        tail = stride + num_channels
        self.offset, self.end = 1, len(self.data) - max(tail, _MIN_TAIL[self.version])
        if self.end < self.offset:
            raise malformed("the data end before the first element")
        self.bytes = np.frombuffer(self.data, np.uint8)
        self.last = self.bytes[-tail:][:stride]
        channels = self.bytes[-num_channels:] if num_channels else np.zeros(stride // 4, np.uint8)
        if (channels & 15 > 2).any() or ((channels & 15 < 2) & (channels > 15)).any():
            raise malformed("a channel has an unknown mode")
        self.channels = channels

    def read_blocks(self, blocks: int, elements: int) -> NDArray[np.uint8]:
        """Return the packed differences (blocks * elements, stride) of blocks of equal size."""
        groups = -(-elements // _GROUP)
        found: dict[int, list[int]] = {1: [], 2: [], 4: [], 8: []}
        slot = 0
        for _ in range(blocks):
            for control in self._controls():
                self._find_groups(control, slot, elements, found)
                slot += groups
                if self.offset > self.end:
                    raise malformed("the data end before the last element")
        unpacked = np.zeros((slot, _GROUP), np.uint8)
        for bits, places in found.items():
            slots, offsets = np.array(places, np.int64).reshape(-1, 2).T
            unpacked[slots] = self._unpack(bits, offsets)
        by_byte = unpacked.reshape(blocks, self.stride, groups * _GROUP)[:, :, :elements]
        return by_byte.transpose(0, 2, 1).reshape(blocks * elements, self.stride)

    def _controls(self) -> Sequence[int]:
        """Read the control code of each byte of an element; version 0 has none."""
        if not self.version:
            return [-1] * self.stride
        size = self.stride // 4
        packed = self.data[self.offset : self.offset + size]
        self.offset += size
        return [code for byte in packed for code in _CODES[byte]]

    def _find_groups(
        self, control: int, slot: int, elements: int, found: dict[int, list[int]]
    ) -> None:
        """Store number and offset of each group of one byte of the elements, by its bits."""
        if control == _ALL_ZERO:
            return
        groups = -(-elements // _GROUP)
        if control == _LITERAL:
            for group in range(groups):
                found[8] += (slot + group, self.offset + group * _GROUP)
            self.offset += elements
            return
        bits_of = _BITS_V0 if control < 0 else _BITS_V1[control]
        size = -(-groups // 4)
        header = self.data[self.offset : self.offset + size]
        offset = self.offset + size
        codes = [code for byte in header for code in _CODES[byte]]
        for number, code in enumerate(codes[:groups], slot):
            bits = bits_of[code]
            if bits:
                found[bits] += (number, offset)
                offset += _group_size(self.data, offset, bits)
        self.offset = offset

    def _unpack(self, bits: int, offsets: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the values (n, 16) of groups whose values have the same number of bits."""
        packed = self.bytes[offsets[:, None] + np.arange(2 * bits)]
        if bits == 8:
            return packed
        escape = (1 << bits) - 1
        values = packed[:, :, None] >> np.array(_SHIFTS[bits], np.uint8) & np.uint8(escape)
        values = values.reshape(-1, _GROUP)
        escaped = values == escape
        # The bytes of escaped values follow the group in their order.
        places = offsets[:, None] + 2 * bits - 1 + np.cumsum(escaped, axis=1)
        values[escaped] = self.bytes[places[escaped]]
        return values

    def add_up(self, deltas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the elements (n, stride) of packed differences, each to the element before."""
        shape = len(deltas), self.stride // 4, 4
        values = np.empty(shape, np.uint8)
        for mode in np.unique(self.channels).tolist():
            chosen = self.channels == mode
            width = 1 << (mode & 15)
            part = np.ascontiguousarray(deltas.reshape(shape)[:, chosen]).view(f"<u{width}")
            last = np.ascontiguousarray(self.last.reshape(-1, 4)[chosen]).view(f"<u{width}")
            values[:, chosen] = _undo(part, last, mode >> 4).view(np.uint8)
        self.last = values[-1].reshape(-1)
        return values.reshape(deltas.shape)


def _group_size(data: bytes, offset: int, bits: int) -> int:
    """Return the bytes of a group: its packed values, and one more for each that is all ones."""
    if bits == 8:
        return _GROUP
    packed = int.from_bytes(data[offset : offset + 2 * bits], "little")
    if bits == 1:
        return 2 + packed.bit_count()
    packed &= packed >> 1
    if bits == 2:
        return 4 + (packed & 0x55555555).bit_count()
    return 8 + (packed & packed >> 2 & 0x1111111111111111).bit_count()


def _undo(deltas: NDArray, last: NDArray, rotation: int) -> NDArray:
    """Return the values (n, ...) of differences: exclusive or for 32 bits, else zigzag codes."""
    one = deltas.dtype.type(1)
    if deltas.itemsize == 4:
        back = deltas.dtype.type((32 - rotation) % 32)
        turned = deltas << back | deltas >> deltas.dtype.type(rotation) if rotation else deltas
        return np.bitwise_xor.accumulate(turned, axis=0) ^ last
    signed = deltas >> one ^ (~(deltas & one) + one)
    return np.cumsum(signed, axis=0, dtype=deltas.dtype) + last
