"""Partial files: the bytes of a transfer so far, kept for the next process that continues it.

Beside NAME.part lies NAME.json with the ETag of the content. It is locked while a process uses the
part, and the lock ends with the process.
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

__all__ = ["Part", "open_part", "parts_folder"]

_KEEP_SECONDS = 24 * 3600.0
"""Parts that were not changed for this long are removed."""


class Part:
    """The first bytes of a file, and the ETag of the content that they belong to."""

    def __init__(self, path: Path, notes: IO[str]) -> None:
        self.path = path
        self._notes = notes
        self.etag: str | None = self._read_etag()
        if self.etag is None:
            self.path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Return the number of bytes that are here."""
        return self.path.stat().st_size if self.path.exists() else 0

    def restart(self, etag: str | None) -> None:
        """Remove the bytes; the next ones belong to the content with this ETag."""
        self.path.unlink(missing_ok=True)
        self.etag = etag
        self._notes.seek(0)
        self._notes.truncate()
        # A content without ETag cannot be recognised later: only this process continues its part.
        json.dump({"tag": etag}, self._notes)
        self._notes.flush()

    def move(self, target: Path) -> None:
        """Move the whole file to its place, atomically."""
        move_file(self.path, target)
        self.restart(None)

    def _read_etag(self) -> str | None:
        try:
            etag = json.loads(self._notes.read())["tag"]
        except (ValueError, KeyError, TypeError):
            return None
        return etag if isinstance(etag, str) else None


@contextlib.contextmanager
def open_part(folder: Path, url: str) -> Iterator[Part]:
    """Open the part of a URL for this process alone; a second process gets a part of its own.

    Parts that nothing continued for a day are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_old(folder)
    name = hashlib.sha256(url.encode()).hexdigest()[:32]
    lock = _lock(folder / f"{name}.json")
    if lock is None:
        name = f"{name}-{uuid.uuid4().hex[:8]}"
        lock = _lock(folder / f"{name}.json")
        assert lock is not None, "the name is random, so no other process locks it"
    with lock:
        part = Part(folder / f"{name}.part", lock)
        try:
            yield part
        finally:
            if not part.size:
                part.path.unlink(missing_ok=True)
                (folder / f"{name}.json").unlink(missing_ok=True)


def parts_folder(configured: str | None) -> Path:
    """Return the folder of parts: the configured one, or one in the machine's temporary folder."""
    return Path(configured or Path(tempfile.gettempdir()) / f"lrm-parts-{os.getuid()}")


def _lock(path: Path) -> IO[str] | None:
    """Open and lock a file; None if another process has locked it."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        # The last process that locked it may have removed it between the two calls.
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
