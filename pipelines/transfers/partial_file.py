"""Partial files: the bytes that a download has received so far, kept so that it can be resumed.

NAME.part holds the bytes, NAME.json the ETag of the content. A process that uses a partial file
holds a lock on NAME.json, which ends with the process.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from core.atomic import move_file

__all__ = ["PartialFile", "open_partial_file", "partial_folder"]

_KEEP_SECONDS = 24 * 3600.0
"""Seconds after its last change until a partial file is removed."""


class PartialFile:
    """The first bytes of a file, and the ETag of the content to which they belong."""

    def __init__(self, path: Path, metadata: IO[str]) -> None:
        self.path = path
        self._metadata = metadata
        self.etag: str | None = self._read_etag()
        if self.etag is None:
            self.path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """The number of bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def restart(self, etag: str | None) -> None:
        """Delete the bytes; those that follow belong to the content with this ETag."""
        self.path.unlink(missing_ok=True)
        self.etag = etag
        self._metadata.seek(0)
        self._metadata.truncate()
        # Without an ETag, another process cannot recognise the content, so it starts from zero.
        json.dump({"tag": etag}, self._metadata)
        self._metadata.flush()

    def move(self, target: Path) -> None:
        """Move the complete file to `target`, atomically."""
        move_file(self.path, target)
        self.restart(None)

    def _read_etag(self) -> str | None:
        try:
            etag = json.loads(self._metadata.read())["tag"]
        except (ValueError, KeyError, TypeError):
            return None
        return etag if isinstance(etag, str) else None


@contextlib.contextmanager
def open_partial_file(folder: Path, url: str) -> Iterator[PartialFile]:
    """Open the partial file of a URL, locked for this process.

    A second process that downloads the same URL gets a partial file of its own. Partial files that
    have not changed for a day are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_old(folder)
    name = hashlib.sha256(url.encode()).hexdigest()[:32]
    lock = _lock(folder / f"{name}.json")
    if lock is None:
        name = f"{name}-{uuid.uuid4().hex[:8]}"
        lock = _lock(folder / f"{name}.json")
        assert lock is not None, "the name is random, so no other process holds its lock"
    with lock:
        partial = PartialFile(folder / f"{name}.part", lock)
        try:
            yield partial
        finally:
            if not partial.size:
                partial.path.unlink(missing_ok=True)
                (folder / f"{name}.json").unlink(missing_ok=True)


def partial_folder(configured: str | None) -> Path:
    """Return the folder of partial files: the configured one, or one in the temporary folder."""
    return Path(configured or Path(tempfile.gettempdir()) / f"lrm-parts-{os.getuid()}")


def _lock(path: Path) -> IO[str] | None:
    """Open and lock a file; return None if another process holds the lock."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        # Between open and flock, the process that held the lock may have deleted the file.
        if os.fstat(file.fileno()).st_nlink:
            file.seek(0)
            return file
        file.close()


def _remove_old(folder: Path) -> None:
    limit = time.time() - _KEEP_SECONDS
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.name.endswith((".part", ".json")) and entry.stat().st_mtime < limit:
                    Path(entry.path).unlink()
