"""A bounded folder on this machine that caches byte ranges of remote files.

Any number of processes share it without locks: each range is a file that is written atomically and
ends with a checksum. A range that another process removes is a cache miss.
"""

import contextlib
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from core.atomic import atomic_file
from core.paths.remove_path import remove_path
from core.ranges import Range

__all__ = ["RangeCache"]

_BUCKET_BYTES = 1 << 25
"""Approximate capacity of one bucket (subfolder), in bytes."""
_CHECKSUM_BYTES = 4
"""Size of a CRC-32."""
_PREFIX = "ranges-"


class RangeCache:
    """A cache of ranges by (file, start, stop) that evicts the least recently used ones.

    The content of a file must never change. The ranges are hashed into buckets of equal capacity,
    so that an eviction examines a few hundred files instead of all of them.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Open or create the cache and remove caches of another size. Raises OSError."""
        self._num_buckets = max(1, max_bytes // _BUCKET_BYTES)
        self._bucket_bytes = max_bytes // self._num_buckets
        self._folder = folder / f"{_PREFIX}{max_bytes}"
        self._folder.mkdir(parents=True, exist_ok=True)
        for other in folder.glob(f"{_PREFIX}*"):
            if other != self._folder:
                remove_path(other, ignore_errors=True)

    def get(self, file: str, span: Range | None) -> bytes | None:
        """Return the bytes of a range, or of a whole file; None if they are missing or damaged."""
        path = self._path(file, span)
        try:
            data = path.read_bytes()
            os.utime(path)  # marks the range as recently used
        except OSError:
            return None
        content, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        # After a power loss a file may be truncated or contain zeros.
        intact = checksum == _checksum(content)
        if span is not None:
            intact = intact and len(content) == span[1] - span[0]
        return content if intact else None

    def put(self, file: str, span: Range | None, content: bytes) -> None:
        """Store a range or a whole file unless it is larger than a bucket. Raises OSError."""
        size = len(content) + _CHECKSUM_BYTES
        if size > self._bucket_bytes:
            return
        path = self._path(file, span)
        path.parent.mkdir(exist_ok=True)
        self._evict(path.parent, size)
        # If another process evicts the temporary file, the range is not stored.
        with contextlib.suppress(FileNotFoundError), atomic_file(path, sync=False) as temporary:
            temporary.write_bytes(content + _checksum(content))

    def _path(self, file: str, span: Range | None) -> Path:
        name = f"{file}\n" if span is None else f"{file}\n{span[0]}\n{span[1]}"
        key = hashlib.sha256(name.encode()).hexdigest()[:40]
        return self._folder / f"{int(key, 16) % self._num_buckets:05x}" / key

    def _evict(self, bucket: Path, size: int) -> None:
        """Remove the least recently used ranges of a bucket until `size` more bytes fit."""
        files = sorted(_files(bucket))
        excess = sum(file_size for _, file_size, _ in files) + size - self._bucket_bytes
        for _, file_size, path in files:
            if excess <= 0:
                break
            Path(path).unlink(missing_ok=True)
            excess -= file_size


def _files(bucket: Path) -> Iterator[tuple[int, int, str]]:
    """Yield the time of last use, size and path of each file, temporary ones included."""
    with os.scandir(bucket) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat()
                yield status.st_mtime_ns, status.st_size, entry.path


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little")
