"""Ways to spoil a GLB: its bytes, the pictures and values in it, its lengths, its document."""

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
    """A spoilt copy of a file, and what was done to it; `other` is a file to take bytes from."""
    model = take_apart(data, other)
    steps = []
    if model is not None and rng.random() < 0.85:
        changes = rng.choices(_MODEL_MUTATIONS, k=rng.choice((1, 1, 1, 2, 3)))
        steps = [f"{change.__name__}: {change(model, rng)}" for change in changes]
        data = model.pack()
    if not steps or rng.random() < 0.05:
        spoil, spoilt = rng.choice(_FILE_MUTATIONS), bytearray(data)
        steps.append(f"{spoil.__name__}: {spoil(spoilt, rng)}")
        data = bytes(spoilt)
    return data, steps


# Of the binary chunk


def image(model: Model, rng: Random) -> str:
    """Spoil the bytes of a picture, or what it says of its size."""
    start, end = model.span(rng.choice(model.items("images")))
    how = rng.choice(("flip", "cut", "start", "size", "size", "chunk"))
    if how == "flip":
        _scatter(model.binary, start, end, rng)
    elif how == "cut":
        start = rng.randrange(start, end) if end > start else start
        model.binary[start:end] = bytes(end - start)
    elif how == "start":
        model.binary[start : min(start + 16, end)] = rng.randbytes(min(16, end - start))
    elif how == "chunk":
        # A text before the header of a PNG, or a comment with a size in a JPEG; the end is lost.
        first = _TEXT if model.binary[start + 1 : start + 4] == b"PNG" else _COMMENT
        place = start + (8 if first is _TEXT else 2)
        model.binary[place:end] = (first + model.binary[place:end])[: max(end - place, 0)]
    else:
        how += f" {_lie_about_size(model.binary, start, rng)}"
    return f"{how} at {start}"


def _lie_about_size(data: bytearray, start: int, rng: Random) -> str:
    width, height = rng.choice(_SIZES), rng.choice(_SIZES)
    if data[start + 1 : start + 4] == b"PNG":
        data[start + 16 : start + 24] = struct.pack(">II", width, height)
        data[start + 29 : start + 33] = struct.pack(">I", zlib.crc32(data[start + 12 : start + 29]))
    else:
        place = max(data.find(b"\xff\xc0", start), data.find(b"\xff\xc2", start))
        if place >= 0:
            data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return f"{width} x {height}"


def values(model: Model, rng: Random) -> str:
    """Put infinite, huge or tiny floats, or wrong bytes, into the values of an accessor."""
    start, end = model.span(rng.choice(model.items("accessors")))
    if rng.random() < 0.3:
        return f"{_scatter(model.binary, start, end, rng)} bytes from {start}"
    bits, step = rng.choice(_FLOAT_BITS), 4 * rng.choice((1, 3, 50, 1000))
    for place in range(start, end - 3, step):
        model.binary[place : place + 4] = bits
    return f"{bits.hex()} from {start} to {end}, step {step}"


def swap(model: Model, rng: Random) -> str:
    """Exchange the binary chunk, or what its views show."""
    how = rng.choice(("other", "rotated", "shortened", "views", "views"))
    if how == "other":
        model.binary = bytearray(model.other)
    elif how == "rotated":
        place = rng.randrange(len(model.binary) + 1)
        model.binary = model.binary[place:] + model.binary[:place]
    elif how == "shortened":
        del model.binary[rng.randrange(len(model.binary) + 1) :]
    else:
        views = model.items("bufferViews")
        first, second = rng.choice(views), rng.choice(views)
        for key in ("byteOffset", "byteLength", "byteStride"):
            first[key], second[key] = second.get(key, 0), first.get(key, 0)
    return how


def lengths(model: Model, rng: Random) -> str:
    """Lie about the length of the file or of a chunk."""
    name = rng.choice(("glTF", "JSON", "BIN"))
    model.lengths[name] = rng.choice((*_LENGTHS, len(model.binary) // 2))
    return f"{name} says {model.lengths[name]}"


def _scatter(data: bytearray, start: int, end: int, rng: Random) -> int:
    """Change single bytes; how many."""
    count = min(rng.choice((1, 10, 1000)), end - start)
    for _ in range(count):
        data[rng.randrange(start, end)] = rng.randrange(256)
    return count


# Of the file as bytes


def _place(data: bytearray, rng: Random) -> int:
    """Every second time near the start, where the headers and the document are."""
    return rng.randrange(min(len(data), 2000) if rng.random() < 0.5 else len(data)) if data else 0


def flip_bits(data: bytearray, rng: Random) -> str:
    """Flip single bits."""
    places = [_place(data, rng) for _ in range(rng.choice((1, 4, 64)))] if data else []
    for place in places:
        data[place] ^= 1 << rng.randrange(8)
    return f"{len(places)}, the first at {places[:1]}"


def overwrite(data: bytearray, rng: Random) -> str:
    """Overwrite a run of bytes by one value or by noise."""
    place, count = _place(data, rng), rng.choice((4, 64, 4096))
    run = bytes([rng.choice((0, 32, 255))]) * count if rng.random() < 0.5 else rng.randbytes(count)
    data[place : place + count] = run[: len(data) - place]
    return f"{count} bytes at {place}"


def truncate(data: bytearray, rng: Random) -> str:
    """Cut the file; every second time its header says so."""
    del data[_place(data, rng) :]
    if len(data) >= 12 and rng.random() < 0.5:
        data[8:12] = struct.pack("<I", len(data))
    return f"{len(data)} bytes are left"


def insert(data: bytearray, rng: Random) -> str:
    """Repeat a run of bytes, so that all after it is shifted."""
    place, count = _place(data, rng), rng.choice((1, 4, 1000))
    data[place:place] = data[place : place + count]
    return f"{count} bytes at {place}"


# What breaks the rules of JSON or of the container is refused at once; what lies within them is
# looked at more closely, and so is most often tried.
_MODEL_MUTATIONS: tuple[Callable[[Model, Random], str], ...] = (
    *(lengths, swap, *ANY_VALUE),
    *(image, values, *MEANING) * 3,
)
_FILE_MUTATIONS: tuple[Callable[[bytearray, Random], str], ...] = (
    *(flip_bits, overwrite, truncate, insert),
)
