"""The GLB container: its header and chunks (glTF 2.0 specification, section 4.4)."""

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.failures import FailureKind
from glb.glb_error import GlbError, malformed
from glb.limits import GlbLimits

__all__ = ["Container", "glb_problem", "read_container", "write_glb"]

_HEADER = struct.Struct("<4sII")
_CHUNK = struct.Struct("<I4s")


@dataclass(frozen=True, eq=False)
class Container:
    """The chunks of a GLB file."""

    json: memoryview
    binary: memoryview | None
    """The BIN chunk; None if the file has none."""
    num_bytes: int
    """Size of the whole file."""


def glb_problem(path: Path) -> str:
    """Return the problem with the header of a GLB file, or an empty string if it is valid."""
    with open(path, "rb") as file:
        return _header_problem(file.read(_HEADER.size), os.fstat(file.fileno()).st_size)


def read_container(source: Path | str | bytes, limits: GlbLimits) -> Container:
    """Read a GLB file, given by its path or its bytes.

    Raises GlbError (`malformed`, `too_large`), and OSError if a path cannot be read.
    """
    if isinstance(source, bytes):
        _check_size(len(source), limits)
        data = memoryview(source)
    else:
        data = memoryview(_read_file(Path(source), limits))
    problem = _header_problem(bytes(data[: _HEADER.size]), len(data))
    if problem:
        raise malformed(problem)
    kind, text, end = _chunk(data, _HEADER.size)
    if kind != b"JSON":
        raise malformed("the first chunk is not JSON")
    if len(text) > limits.max_json_bytes:
        message = f"{len(text)} bytes of JSON; the limit is {limits.max_json_bytes}"
        raise GlbError(FailureKind.TOO_LARGE, message)
    rest, binary = data[end:], None
    if rest:
        kind, second, _ = _chunk(data, end)
        binary = second if kind == b"BIN\0" else None
    return Container(text, binary, len(data))


def write_glb(path: Path, document: dict[str, Any], binary: bytes | bytearray) -> None:
    """Write a GLB file from a JSON document and its binary chunk, whose size is a multiple of 4."""
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    with open(path, "wb") as file:
        length = _HEADER.size + 2 * _CHUNK.size + len(text) + len(binary)
        file.write(_HEADER.pack(b"glTF", 2, length))
        file.write(_CHUNK.pack(len(text), b"JSON") + text)
        file.write(_CHUNK.pack(len(binary), b"BIN\0"))
        file.write(binary)


def _read_file(path: Path, limits: GlbLimits) -> bytearray:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        _check_size(size, limits)
        # One spare byte, so that a file that has grown fails the check of its size.
        data = bytearray(size + 1)
        del data[file.readinto(data) :]
    return data


def _check_size(size: int, limits: GlbLimits) -> None:
    if size > limits.max_file_bytes:
        message = f"{size} bytes; the limit is {limits.max_file_bytes}"
        raise GlbError(FailureKind.TOO_LARGE, message)


def _header_problem(header: bytes, size: int) -> str:
    if len(header) < _HEADER.size or header[:4] != b"glTF":
        return f"not a GLB file ({size} bytes)"
    _, version, length = _HEADER.unpack(header)
    if version != 2:
        return f"GLB version {version}; only version 2 can be read"
    return "" if length == size else f"{size} bytes, but its header states {length}"


def _chunk(data: memoryview, start: int) -> tuple[bytes, memoryview, int]:
    """Return the type and the bytes of a chunk, and the offset of its end."""
    if start + _CHUNK.size > len(data):
        raise malformed("the file ends inside a chunk's header")
    length, kind = _CHUNK.unpack_from(data, start)
    start += _CHUNK.size
    if start + length > len(data):
        raise malformed("the file ends inside a chunk")
    return kind, data[start : start + length], start + length
