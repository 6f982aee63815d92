"""A bounded folder on this machine that keeps byte ranges of files that lie elsewhere.

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
    """Ranges by (file, start, stop); where room is wanted, the one not used for longest goes.

    The files must never change under their names. Each range belongs to one of many shelves with an
    equal share of the bytes, so that making room looks at a few hundred files, not at all.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Raises OSError if the folder cannot be made. One of another bound is emptied."""
        self._shelves = max(1, max_bytes // _SHELF_BYTES)
        self._shelf_bytes = max_bytes // self._shelves
        self._folder = folder / f"{_PREFIX}{max_bytes}"
        self._folder.mkdir(parents=True, exist_ok=True)
        for other in folder.glob(f"{_PREFIX}*"):
            if other != self._folder:
                shutil.rmtree(other, ignore_errors=True)

    def get(self, file: str, span: Range) -> bytes | None:
        """The bytes of the range, if they lie here whole."""
        path = self._path(file, span)
        try:
            data = path.read_bytes()
            os.utime(path)  # it was used now
        except OSError:
            return None
        content, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        # After a loss of power a file may be short, or hold zeros.
        whole = len(content) == span[1] - span[0] and checksum == _checksum(content)
        return content if whole else None

    def put(self, file: str, span: Range, content: bytes) -> None:
        """Keep a range; one that is larger than a shelf is not. Raises OSError."""
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
    """Time of last use, size and path of each file, unfinished ones too."""
    with os.scandir(shelf) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat()
                yield found.st_mtime_ns, found.st_size, entry.path


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little")
