"""What has come of a file so far: it outlives the process, so that the next one goes on with it."""

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


class Part:
    """The first bytes of a file, and the tag (ETag) of the content that they belong to."""

    def __init__(self, path: Path, notes: IO[str]) -> None:
        self.path = path
        self._notes = notes
        self.tag: str | None = self._read_tag()
        if self.tag is None:
            self.path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self.path.stat().st_size if self.path.exists() else 0

    def restart(self, tag: str | None) -> None:
        """Forget the bytes; those that come now belong to the content of this tag."""
        self.path.unlink(missing_ok=True)
        self.tag = tag
        self._notes.seek(0)
        self._notes.truncate()
        # A content without a tag cannot be told from another: only this process goes on with it.
        json.dump({"tag": tag}, self._notes)
        self._notes.flush()

    def move(self, target: Path) -> None:
        """The part is whole: put it at its place, atomically."""
        move_file(self.path, target)
        self.restart(None)

    def _read_tag(self) -> str | None:
        try:
            tag = json.loads(self._notes.read())["tag"]
        except (ValueError, KeyError, TypeError):
            return None
        return tag if isinstance(tag, str) else None


@contextlib.contextmanager
def open_part(folder: Path, url: str) -> Iterator[Part]:
    """The part of a URL, for this process alone; a second process gets one of its own.

    What nobody has gone on with for a day is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_old(folder)
    name = hashlib.sha256(url.encode()).hexdigest()[:32]
    lock = _lock(folder / f"{name}.json")
    if lock is None:
        name = f"{name}-{uuid.uuid4().hex[:8]}"
        lock = _lock(folder / f"{name}.json")
        assert lock is not None, "nobody else knows this name"
    with lock:
        part = Part(folder / f"{name}.part", lock)
        try:
            yield part
        finally:
            if not part.size:
                part.path.unlink(missing_ok=True)
                (folder / f"{name}.json").unlink(missing_ok=True)


def parts_folder(configured: str | None) -> Path:
    """Where parts lie: the configured folder, or one in the machine's temporary folder."""
    return Path(configured or Path(tempfile.gettempdir()) / f"lrm-parts-{os.getuid()}")


def _lock(path: Path) -> IO[str] | None:
    """The file, locked; None if another process holds it. The lock ends with its holder."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        # Its last holder may have removed it between the two calls.
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
