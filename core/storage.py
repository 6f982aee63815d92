"""One interface to local folders and object stores: whole files, byte ranges, atomic writes."""

import contextlib
import errno
import os
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from core.atomic import atomic_file, atomic_write, flush
from core.paths.local_listing import local_version, scan
from core.paths.locations import open_location
from core.paths.regular_file import open_regular, require_regular
from core.ranges import Range, coalesce

__all__ = ["Storage", "object_store_errors", "storage_errors"]

_CLIENT_ERRORS = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "azure.core.exceptions": ("AzureError",),
}
"""Client error classes by module; s3fs, gcsfs and adlfs raise some of them unchanged."""
_LOCAL_GAP = 1 << 14
_REMOTE_GAP = 1 << 18
"""Bytes that can be read in the time of one more request: microseconds locally, 10 ms remotely."""
_FREE_GAP = 1024
"""Bytes of the headers of one more request, and also of those between two members of a tar."""


class Storage:
    """A folder on any fsspec file system; paths are relative to it and use `/`.

    Readers never see a partial file: local writes are atomic (`core.atomic`), and an object store
    shows an object only when its upload is complete.
    """

    def __init__(self, uri: str | Path) -> None:
        self._fs, base = open_location(uri)
        self._base = base.rstrip("/")
        self.is_local = "file" in _protocols(self._fs)
        self.uri = self._base if self.is_local else str(uri).rstrip("/")
        """Absolute path of a local folder, so that it is valid in every process; else the URI."""

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    def __reduce__(self) -> tuple[type["Storage"], tuple[str]]:
        return Storage, (self.uri,)

    def resolve(self, path: str) -> str:
        """Return the file system's name of a file: an absolute path on local disk."""
        return f"{self._base}/{path}" if path else self._base

    def exists(self, path: str) -> bool:
        """Return whether a file or folder of that name exists."""
        return bool(self._fs.exists(self.resolve(path)))

    def info(self, path: str) -> dict[str, Any]:
        """Return the file system's entry of a file: `size`, and others such as mtime or ETag.

        Raises FileNotFoundError.
        """
        return dict(self._fs.info(self.resolve(path)))

    def size(self, path: str) -> int:
        """Return the size of a file in bytes. Raises FileNotFoundError."""
        return int(self.info(path)["size"])

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading. Raises FileNotFoundError."""
        if self.is_local:
            return open_regular(self.resolve(path), "rb")
        return self._fs.open(self.resolve(path), "rb")

    def get(self, path: str, local: Path) -> None:
        """Copy a file of this storage to local disk. Raises FileNotFoundError."""
        if self.is_local:
            require_regular(self.resolve(path))
        self._fs.get_file(self.resolve(path), str(local))

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises FileNotFoundError."""
        if self.is_local:
            with self.open(path) as file:
                return file.read()
        return bytes(self._fs.cat_file(self.resolve(path)))

    def read_immutable(self, path: str, *, cached: bool = True) -> bytes:
        """Return the content of a file that never changes; a subclass may cache it.

        `cached=False` reads past the cache. Raises FileNotFoundError.
        """
        return self.read(path)

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of a file.

        Raises FileNotFoundError, or EOFError if the file is shorter.
        """
        if self.is_local:
            return self.read_spans(path, [(start, stop)])[0]
        data = bytes(self._fs.cat_file(self.resolve(path), start=start, end=stop))
        if len(data) != stop - start:
            raise EOFError(f"{self.uri}/{path} ends before byte {stop}")
        return data

    def read_ranges(self, path: str, ranges: Sequence[Range]) -> list[bytes]:
        """Return the bytes of each range of a file; nearby ranges are read with one request.

        Raises FileNotFoundError, or EOFError if the file is shorter.
        """
        if self.is_local:
            spans = coalesce(ranges, _LOCAL_GAP)
        else:
            spans = coalesce(ranges, _REMOTE_GAP, free_gap=_FREE_GAP)
        blocks = self.read_spans(path, spans)
        starts = [start for start, _ in spans]
        contents = []
        for start, stop in ranges:
            block = bisect_right(starts, start) - 1
            skip = start - starts[block] if start < stop else 0
            contents.append(blocks[block][skip : skip + stop - start] if start < stop else b"")
        return contents

    def read_spans(
        self, path: str, spans: Sequence[Range], timeout: float | None = None
    ) -> list[bytes]:
        """Read each span with its own request; requests to an object store are concurrent.

        Raises TimeoutError after `timeout` seconds, on asynchronous file systems only.
        """
        name = self.resolve(path)
        if self.is_local:
            with open_regular(name, "rb", buffering=0) as file:
                blocks = [_read_at(file.fileno(), start, stop) for start, stop in spans]
        else:
            limit = {"timeout": timeout} if self._fs.async_impl else {}
            starts, stops = [start for start, _ in spans], [stop for _, stop in spans]
            blocks = self._fs.cat_ranges([name] * len(spans), starts, stops, **limit)
        for (start, stop), block in zip(spans, blocks, strict=True):
            past_the_end = isinstance(block, OSError) and block.errno == errno.EINVAL
            if isinstance(block, Exception) and not past_the_end:
                raise block
            if past_the_end or len(block) != stop - start:
                raise EOFError(f"{self.uri}/{path} ends before byte {stop}")
        return blocks

    def list_files(self, folder: str) -> list[str]:
        """Return the sorted names of the files directly in a folder; none if it does not exist."""
        return sorted(self.list_details(folder))

    def list_details(self, folder: str) -> dict[str, dict[str, Any]]:
        """Return the entries (see `info`) of the files directly in a folder, by name."""
        try:
            entries = self._fs.ls(self.resolve(folder), detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        # A link counts as its target, because the caches of model hubs consist of links.
        files = {
            entry["name"].rsplit("/", 1)[-1]: entry
            for entry in entries
            if entry["type"] == "file" or (entry.get("islink") and self._fs.isfile(entry["name"]))
        }
        return {name: entry for name, entry in files.items() if not name.startswith(".")}

    def find_files(self, folder: str) -> dict[str, int]:
        """Return the size in bytes of every file below a folder, hidden ones included, by path."""
        self._fs.invalidate_cache()
        base = len(self._base) + 1
        entries = self._fs.find(self.resolve(folder), detail=True)
        return {str(name)[base:]: int(entry["size"]) for name, entry in sorted(entries.items())}

    def create(self, path: str, data: bytes) -> None:
        """Write a whole new file. Raises FileExistsError if it exists.

        Of several concurrent writers one succeeds; on an object store, through a conditional put.
        There, a writer also succeeds if the stored bytes equal its own.
        """
        if not self.is_local:
            try:
                self._fs.pipe_file(self.resolve(path), data, mode="create")
            except FileExistsError:
                # If the response was lost, the client repeats the request and finds its own object.
                if self.read(path) != data:
                    raise
            return
        atomic_write(Path(self.resolve(path)), data, overwrite=False)

    def version(self, path: str) -> str:
        """Return a fingerprint of a file: its size with its modification time or ETag.

        Raises FileNotFoundError.
        """
        if self.is_local:
            return local_version(Path(self.resolve(path)).stat())
        self._fs.invalidate_cache()
        return _version(self.info(path))

    def versions(
        self,
        folder: str = "",
        *,
        deep: bool = False,
        on_problem: Callable[[str, str], None] = lambda *_: None,
    ) -> dict[str, str]:
        """Return the versions of the files directly in a folder by name; `deep`: below it, by path.

        Hidden files and folders are omitted. Links to files count as files, links to folders are
        ignored. The result is empty if the folder does not exist. `on_problem` receives the path
        of every local entry that cannot be read, and why: a link to nothing or to itself, a folder
        below the first one that cannot be listed, a folder or pipe among the files.
        """
        if self.is_local:
            return dict(scan(self.resolve(folder), "", deep, on_problem))
        base = self.resolve(folder)
        self._fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            entries = self._fs.find(base, maxdepth=None if deep else 1, detail=True)
            paths = {entry["name"].removeprefix(f"{base}/"): entry for entry in entries.values()}
            return {
                path: _version(entry)
                for path, entry in paths.items()
                if not any(part.startswith(".") for part in path.split("/"))
            }
        return {}

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file atomically; an existing file is replaced."""
        if not self.is_local:
            # A transaction would cover the whole file system object, which other threads use too.
            self._fs.pipe_file(self.resolve(path), data)
            return
        with self.writing(path) as file:
            file.write(data)

    def put(self, path: str, local: Path) -> None:
        """Copy a local file here atomically; an existing file is replaced."""
        if not self.is_local:
            self._fs.put_file(str(local), self.resolve(path))
            return
        with open(local, "rb") as source, self.writing(path) as file:
            while block := source.read(1 << 22):
                file.write(block)

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for writing that appears under its name only if the block raises no error."""
        target = self.resolve(path)
        if not self.is_local:
            with self._fs.transaction, self._fs.open(target, "wb") as file:
                yield file
            return
        with atomic_file(Path(target)) as temporary, open(temporary, "xb") as file:
            yield file

    def delete(self, *paths: str) -> None:
        """Remove these files if they exist, durably: they are not back after a loss of power."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._fs.rm_file(self.resolve(path))
        folders = {Path(self.resolve(path)).parent for path in paths if self.is_local}
        for folder in filter(Path.is_dir, folders):
            with contextlib.suppress(FileNotFoundError):
                flush(folder)


def storage_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return the errors of an unreachable or failing storage, and the given `others`.

    Call it in the `except` clause, not earlier: see `object_store_errors`.
    """
    return (OSError, *object_store_errors(), *others)


def object_store_errors() -> tuple[type[Exception], ...]:
    """Return the errors that only clients of object stores raise, such as missing credentials.

    The result is empty until a store is opened, because that imports its client.
    """
    loaded = ((sys.modules.get(module), names) for module, names in _CLIENT_ERRORS.items())
    return tuple(getattr(module, name) for module, names in loaded if module for name in names)


def _read_at(descriptor: int, start: int, stop: int) -> bytes:
    """Return bytes [start, stop) of an open file; fewer if it is shorter."""
    block = os.pread(descriptor, stop - start, start)
    # One call returns at most 2 GiB, and may return less on network file systems.
    while len(block) < stop - start:
        rest = os.pread(descriptor, stop - start - len(block), start + len(block))
        if not rest:
            break
        block += rest
    return block


def _version(entry: dict[str, Any]) -> str:
    changed = entry.get("ETag") or entry.get("mtime") or entry.get("LastModified") or ""
    return f"{entry['size']}-{changed}".replace('"', "")


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
