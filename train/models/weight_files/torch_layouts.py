"""Where the values of a PyTorch file are: in a zip archive, or behind pickles (before 1.6)."""

import io
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from train.models.weight_files.pickle_machine import MAX_PICKLE_BYTES, InvalidWeights
from train.models.weight_files.pickled_outline import (
    StorageOutline,
    TensorOutline,
    read_outline,
)

__all__ = ["Layout", "read_layout"]

_MAX_DIRECTORY_BYTES = 8_000_000
"""Largest directory of an archive in bytes; an entry needs about 100."""
_END = struct.Struct("<4s4H2LH")
_END_64_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
"""Records of the zip format."""
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first value of a file from before PyTorch 1.6."""
_LEGACY_PROTOCOL = 1001


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The content of a file, and the positions of its values."""

    content: Any
    """Plain values and outlines of tensors."""
    starts: Mapping[str, int]
    """Position in the file of the first byte of each storage, by its key."""


def read_layout(file: IO[bytes]) -> Layout:
    """Return the layout of an open file. Raises InvalidWeights and OSError."""
    file.seek(0)
    return _archive(file) if file.read(4) == b"PK\3\4" else _legacy(file)


def _archive(file: IO[bytes]) -> Layout:
    _check_directory(file)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error):
        raise InvalidWeights("its archive is damaged") from None
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise InvalidWeights("its archive has no weights of PyTorch")
    root = pickles[0].removesuffix("data.pkl")
    order = entries.get(f"{root}byteorder")
    if order is not None and _read_entry(file, order, 16) != b"little":
        raise InvalidWeights("its values are not in the byte order little")
    content = read_outline(io.BytesIO(_read_entry(file, entries[pickles[0]], MAX_PICKLE_BYTES)))
    starts = {}
    for storage in _storages(content):
        entry = entries.get(f"{root}data/{storage.key}")
        if entry is None or entry.file_size < storage.nbytes:
            raise InvalidWeights(f"values are missing in its archive (data/{storage.key[:80]})")
        starts[storage.key] = _data_start(file, entry)
    return Layout(content=content, starts=starts)


def _check_directory(file: IO[bytes]) -> None:
    """Raise InvalidWeights if the directory is large: `zipfile` reads all of it at once."""
    size = file.seek(0, os.SEEK_END)
    if size < _END.size:
        raise InvalidWeights("it is cut off")
    file.seek(size - _END.size)
    end = _END.unpack(file.read(_END.size))
    if end[0] != b"PK\5\6" or end[-1]:
        raise InvalidWeights("it is cut off, or more follows on its archive")
    num_bytes = end[5]
    locator_at = size - _END.size - _END_64_LOCATOR.size
    if locator_at >= 0:
        file.seek(locator_at)
        signature, _, position, _ = _END_64_LOCATOR.unpack(file.read(_END_64_LOCATOR.size))
        if signature == b"PK\6\7" and position <= size - _END_64.size:
            file.seek(position)
            num_bytes = max(num_bytes % 0xFFFFFFFF, _END_64.unpack(file.read(_END_64.size))[8])
    if num_bytes > _MAX_DIRECTORY_BYTES:
        raise InvalidWeights(f"the directory of its archive has {num_bytes} bytes")


def _read_entry(file: IO[bytes], entry: zipfile.ZipInfo, limit: int) -> bytes:
    if entry.file_size > limit:
        raise InvalidWeights(f"{entry.filename[:80]} in it has more than {limit} bytes")
    file.seek(_data_start(file, entry))
    return file.read(entry.file_size)


def _data_start(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Return the position of an entry's bytes, which must be in the file as they are."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise InvalidWeights(f"{entry.filename[:80]} in it is compressed, which PyTorch never does")
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
        raise InvalidWeights("its archive is damaged")
    *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    start = entry.header_offset + len(header) + name_length + extra_length
    if start + entry.file_size > file.seek(0, os.SEEK_END):
        raise InvalidWeights("its archive is cut off")
    return start


def _legacy(file: IO[bytes]) -> Layout:
    """Read a file of five pickles and the values of its storages, each after their number."""
    file.seek(0)
    stream = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    if read_outline(stream) != _LEGACY_MAGIC or read_outline(stream) != _LEGACY_PROTOCOL:
        raise InvalidWeights("it is no file of PyTorch")
    system = read_outline(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise InvalidWeights("its values are not in the byte order little")
    content, keys = read_outline(stream), read_outline(stream)
    storages = {storage.key: storage for storage in _storages(content)}
    if not isinstance(keys, list) or len(keys) != len(storages):
        raise InvalidWeights("its list of values is damaged")
    starts, position, size = {}, stream.tell(), file.seek(0, os.SEEK_END)
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        file.seek(position)
        number = file.read(8)
        if storage is None or number != struct.pack("<q", storage.numel):
            raise InvalidWeights("its list of values is damaged")
        starts[storage.key] = position + len(number)
        position = starts[storage.key] + storage.nbytes
        if position > size:
            raise InvalidWeights("it is cut off")
    return Layout(content=content, starts=starts)


def _storages(content: Any) -> Iterator[StorageOutline]:
    """Yield the storages of all tensors in nested values, each value once."""
    pending, seen = [content], set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, TensorOutline):
            pending.append(value.storage)
        elif isinstance(value, StorageOutline):
            yield value
        elif isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
