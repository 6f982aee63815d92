"""Annotation files in the local cache: only readable tables are kept, and damage is detected.

Beside a table NAME, `.NAME.sha256` holds the SHA-256 of what was downloaded. A table without it,
which the `objaverse` package may have written, is accepted if it can be read.
"""

import contextlib
import hashlib
import logging
from pathlib import Path

from core.atomic import atomic_write
from core.safe_text import printable
from pipelines.sources.json_tables import MAX_BYTES, read_table

__all__ = ["read_cached_table", "record_digest", "table_problem"]

_log = logging.getLogger(__name__)


def read_cached_table(path: Path) -> bytes | None:
    """Return a cached table; None, with a warning, if it is damaged, and None if there is none."""
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        problem = _problem(path, data)
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    if not problem:
        return data
    _log.warning("%s: the cached file %s; it is downloaded again", path, printable(problem))
    return None


def record_digest(path: Path, sha256: str) -> None:
    """Store the SHA-256 of a table that was downloaded, unless the cache cannot be written."""
    with contextlib.suppress(OSError):
        atomic_write(_digest_path(path), sha256)


def table_problem(path: Path) -> str:
    """Return why a file is not a table, or an empty text."""
    if path.stat().st_size > MAX_BYTES:
        return f"it has more than {MAX_BYTES >> 20} MiB"
    try:
        read_table(path.read_bytes())
    except ValueError as error:
        return f"it is not a table: {error}"
    return ""


def _problem(path: Path, data: bytes) -> str:
    """Return how a cached table is damaged, or an empty text."""
    digest = _digest_path(path)
    if digest.is_file():
        same = digest.read_bytes()[:65].decode("ascii", "replace") == _sha256(data)
        return "" if same else "is not the one that was downloaded"
    problem = table_problem(path)
    if not problem:
        record_digest(path, _sha256(data))
    return problem and f"is damaged: {problem}"


def _digest_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
