"""Mutations of a GLB file: its bytes, images, array values, lengths and document."""

import math
import struct
import zlib
from collections.abc import Callable
from random import Random

from benchmarks.fuzz.document_mutations import ANY_VALUE, MEANING, Model, take_apart

__all__ = ["mutate"]

_FLOAT_BITS = [struct.pack("<f", value) for value in (math.nan, math.inf, 3.4e38, 1e-40, -1e20)]
_TEXT = struct.pack(">I4sIII", 8, b"tEXt", 1, 1, zlib.crc32(b"tEXt\0\0\0\1\0\0\0\1"))
_COMMENT = struct.pack(">HHHHHH", 0xFFFE, 10, 0xFFC0, 8, 1, 1)
_SIZES = (0, 1, 5000, 16_384, 65_535)
_LENGTHS = (0, 1, 4, 11, 2**31, 2**32 - 1)


def mutate(data: bytes, other: bytes, rng: Random) -> tuple[bytes, list[str]]:
    """Return a damaged copy of a file and its mutations; `other` is a file to copy bytes from."""
    model = take_apart(data, other)
    steps = []
    if model is not None and rng.random() < 0.85:
        changes = rng.choices(_MODEL_MUTATIONS, k=rng.choice((1, 1, 1, 2, 3)))
        steps = [f"{change.__name__}: {change(model, rng)}" for change in changes]
        data = model.pack()
    if not steps or rng.random() < 0.05:
        change, damaged = rng.choice(_FILE_MUTATIONS), bytearray(data)
        steps.append(f"{change.__name__}: {change(damaged, rng)}")
        data = bytes(damaged)
    return data, steps


# Mutations of the binary chunk


def image(model: Model, rng: Random) -> str:
    """Damage the bytes of an image, or the size in its header."""
    start, end = model.span(rng.choice(model.items("images")))
    method = rng.choice(("flip", "cut", "start", "size", "size", "chunk"))
    if method == "flip":
        _scatter(model.binary, start, end, rng)
    elif method == "cut":
        start = rng.randrange(start, end) if end > start else start
        model.binary[start:end] = bytes(end - start)
    elif method == "start":
        model.binary[start : min(start + 16, end)] = rng.randbytes(min(16, end - start))
    elif method == "chunk":
        # Insert a text chunk before a PNG's header, or a JPEG comment that contains a size marker.
        inserted = _TEXT if model.binary[start + 1 : start + 4] == b"PNG" else _COMMENT
        offset = start + (8 if inserted is _TEXT else 2)
        model.binary[offset:end] = (inserted + model.binary[offset:end])[: max(end - offset, 0)]
    else:
        method += f" {_change_stated_size(model.binary, start, rng)}"
    return f"{method} at {start}"


def _change_stated_size(data: bytearray, start: int, rng: Random) -> str:
    width, height = rng.choice(_SIZES), rng.choice(_SIZES)
    if data[start + 1 : start + 4] == b"PNG":
        data[start + 16 : start + 24] = struct.pack(">II", width, height)
        data[start + 29 : start + 33] = struct.pack(">I", zlib.crc32(data[start + 12 : start + 29]))
    else:
        offset = max(data.find(b"\xff\xc0", start), data.find(b"\xff\xc2", start))
        if offset >= 0:
            data[offset + 5 : offset + 9] = struct.pack(">HH", height, width)
    return f"{width} x {height}"


def values(model: Model, rng: Random) -> str:
    """Write infinite, huge or tiny floats, or random bytes, into the values of an accessor."""
    start, end = model.span(rng.choice(model.items("accessors")))
    if rng.random() < 0.3:
        return f"{_scatter(model.binary, start, end, rng)} bytes from {start}"
    value, step = rng.choice(_FLOAT_BITS), 4 * rng.choice((1, 3, 50, 1000))
    for offset in range(start, end - 3, step):
        model.binary[offset : offset + 4] = value
    return f"{value.hex()} from {start} to {end}, step {step}"


def swap(model: Model, rng: Random) -> str:
    """Exchange the binary chunk, or the ranges of two of its buffer views."""
    method = rng.choice(("other", "rotated", "shortened", "views", "views"))
    if method == "other":
        model.binary = bytearray(model.other)
    elif method == "rotated":
        offset = rng.randrange(len(model.binary) + 1)
        model.binary = model.binary[offset:] + model.binary[:offset]
    elif method == "shortened":
        del model.binary[rng.randrange(len(model.binary) + 1) :]
    else:
        views = model.items("bufferViews")
        first, second = rng.choice(views), rng.choice(views)
        for key in ("byteOffset", "byteLength", "byteStride"):
            first[key], second[key] = second.get(key, 0), first.get(key, 0)
    return method


def lengths(model: Model, rng: Random) -> str:
    """State a wrong length of the file or of a chunk."""
    name = rng.choice(("glTF", "JSON", "BIN"))
    model.lengths[name] = rng.choice((*_LENGTHS, len(model.binary) // 2))
    return f"{name} says {model.lengths[name]}"


def _scatter(data: bytearray, start: int, end: int, rng: Random) -> int:
    """Change single random bytes; return their number."""
    count = min(rng.choice((1, 10, 1000)), end - start)
    for _ in range(count):
        data[rng.randrange(start, end)] = rng.randrange(256)
    return count


# Mutations of the bytes of the file


def _random_offset(data: bytearray, rng: Random) -> int:
    """Return a random position; half of them are near the start, in headers and document."""
    return rng.randrange(min(len(data), 2000) if rng.random() < 0.5 else len(data)) if data else 0


def flip_bits(data: bytearray, rng: Random) -> str:
    """Flip single bits."""
    offsets = [_random_offset(data, rng) for _ in range(rng.choice((1, 4, 64)))] if data else []
    for offset in offsets:
        data[offset] ^= 1 << rng.randrange(8)
    return f"{len(offsets)}, the first at {offsets[:1]}"


def overwrite(data: bytearray, rng: Random) -> str:
    """Overwrite a range of bytes with one value or with noise."""
    offset, count = _random_offset(data, rng), rng.choice((4, 64, 4096))
    values = (
        bytes([rng.choice((0, 32, 255))]) * count if rng.random() < 0.5 else rng.randbytes(count)
    )
    data[offset : offset + count] = values[: len(data) - offset]
    return f"{count} bytes at {offset}"


def truncate(data: bytearray, rng: Random) -> str:
    """Truncate the file; in half of the cases its header has the new length."""
    del data[_random_offset(data, rng) :]
    if len(data) >= 12 and rng.random() < 0.5:
        data[8:12] = struct.pack("<I", len(data))
    return f"{len(data)} bytes remain"


def insert(data: bytearray, rng: Random) -> str:
    """Repeat a range of bytes, so that all bytes behind it are shifted."""
    offset, count = _random_offset(data, rng), rng.choice((1, 4, 1000))
    data[offset:offset] = data[offset : offset + count]
    return f"{count} bytes at {offset}"


# Files that break the rules of JSON or of the container are rejected early. Valid JSON with wrong
# content reaches more code, so these mutations are used three times as often.
_MODEL_MUTATIONS: tuple[Callable[[Model, Random], str], ...] = (
    *(lengths, swap, *ANY_VALUE),
    *(image, values, *MEANING) * 3,
)
_FILE_MUTATIONS: tuple[Callable[[bytearray, Random], str], ...] = (
    *(flip_bits, overwrite, truncate, insert),
)
