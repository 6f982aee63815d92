"""How the transfer of a file ends, and the check of a GLB file's header."""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from core.failures import StageFailed

__all__ = ["FetchFailed", "Fetched", "file_sha256", "glb_problem"]

_HEADER = struct.Struct("<4sII")


class FetchFailed(StageFailed):
    """An object's file could not be transferred; `core.failures` says what each kind means."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A verified file."""

    sha256: str
    num_bytes: int


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def glb_problem(path: Path) -> str:
    """Return what is wrong with a GLB file's header; empty if nothing is."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or header[:4] != b"glTF":
        return f"not a GLB file ({size} bytes)"
    _, version, length = _HEADER.unpack(header)
    if version != 2:
        return f"GLB version {version}; only version 2 can be read"
    return "" if length == size else f"{size} bytes of the {length} that the header says"
