"""The two outcomes of a fetch: a verified file, or a failure."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from core.failures import StageFailed

__all__ = ["FetchFailed", "Fetched", "file_sha256"]


class FetchFailed(StageFailed):
    """Raised if an object's file cannot be fetched; `core.failures` explains each kind."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file that was fetched and verified."""

    sha256: str
    num_bytes: int


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
