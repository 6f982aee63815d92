"""How the transfer of a file ends."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from core.failures import StageFailed

__all__ = ["FetchFailed", "Fetched", "file_sha256"]


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
