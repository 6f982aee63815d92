"""A bounded folder on this machine that caches byte ranges of remote files.

Any number of processes share it without locks: a range appears whole, by renaming, and carries its
own checksum. A range that another process removes is a miss.
"""

import contextlib
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

from core.atomic import atomic_file
from core.ranges import Range

__all__ = ["RangeCache"]

_SHELF_BYTES = 1 << 25
_CHECKSUM_BYTES = 4
_PREFIX = "ranges-"


class RangeCache:
    """Keeps ranges by (file, start, stop) and evicts the least recently used ones.

    The files must never change under their names. Each range belongs to one of many shelves with an
    equal part of the bytes, so that an eviction looks at a few hundred files, not at all of them.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Open or make the cache; one of another bound is removed. Raises OSError."""
        self._shelves = max(1, max_bytes // _SHELF_BYTES)
        self._shelf_bytes = max_bytes // self._shelves
        self._folder = folder / f"{_PREFIX}{max_bytes}"
        self._folder.mkdir(parents=True, exist_ok=True)
        for other in folder.glob(f"{_PREFIX}*"):
            if other != self._folder:
                shutil.rmtree(other, ignore_errors=True)

    def get(self, file: str, span: Range) -> bytes | None:
        """Return the bytes of the range, or None if they are not here or damaged."""
        path = self._path(file, span)
        try:
            data = path.read_bytes()
            os.utime(path)  # the time of last use
        except OSError:
            return None
        content, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        # After a power loss a file may be short, or hold zeros.
        whole = len(content) == span[1] - span[0] and checksum == _checksum(content)
        return content if whole else None

    def put(self, file: str, span: Range, content: bytes) -> None:
        """Store a range, unless it is larger than a shelf. Raises OSError."""
        size = len(content) + _CHECKSUM_BYTES
        if size > self._shelf_bytes:
            return
        path = self._path(file, span)
        path.parent.mkdir(exist_ok=True)
        self._make_room(path.parent, size)
        # Another process may remove the temporary file to free space: then the range is not kept.
        with contextlib.suppress(FileNotFoundError), atomic_file(path, sync=False) as temporary:
            temporary.write_bytes(content + _checksum(content))

    def _path(self, file: str, span: Range) -> Path:
        key = hashlib.sha256(f"{file}\n{span[0]}\n{span[1]}".encode()).hexdigest()[:40]
        return self._folder / f"{int(key, 16) % self._shelves:05x}" / key

    def _make_room(self, shelf: Path, size: int) -> None:
        held = sorted(_files(shelf))
        left = sum(held_size for _, held_size, _ in held) + size - self._shelf_bytes
        for _, held_size, path in held:
            if left <= 0:
                break
            Path(path).unlink(missing_ok=True)
            left -= held_size


def _files(shelf: Path) -> Iterator[tuple[int, int, str]]:
    """Yield the time of last use, size and path of each file, temporary ones included."""
    with os.scandir(shelf) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat()
                yield found.st_mtime_ns, found.st_size, entry.path


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little")
