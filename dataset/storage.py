"""One interface to local folders and object stores: whole files, byte ranges, atomic writes."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fsspec

from dataset.errors import BadInput

__all__ = ["Storage"]


class Storage:
    """A folder on any fsspec file system; paths are relative to it and use `/`.

    Readers never see half a file: a local write goes to a temporary name and is renamed, an object
    store shows an object when its upload is complete.
    """

    def __init__(self, uri: str) -> None:
        try:
            self._fs, base = fsspec.core.url_to_fs(uri)
        except (ValueError, ImportError) as error:
            raise BadInput(f"{uri}: cannot open this storage: {error}") from None
        self._base = str(base).rstrip("/")
        self.is_local = "file" in _protocols(self._fs)
        self.uri = self._base if self.is_local else uri.rstrip("/")
        """Absolute for a local folder: it means the same in every process."""

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"

    def __reduce__(self) -> tuple[type["Storage"], tuple[str]]:
        return Storage, (self.uri,)

    def resolve(self, path: str) -> str:
        """The file system's own name of a file: an absolute path on local disk."""
        return f"{self._base}/{path}" if path else self._base

    def exists(self, path: str) -> bool:
        """Whether a file or folder of that name is there."""
        return bool(self._fs.exists(self.resolve(path)))

    def info(self, path: str) -> dict[str, Any]:
        """The file system's entry of a file: `size` and whatever else it knows (mtime, ETag).

        Raises FileNotFoundError.
        """
        return dict(self._fs.info(self.resolve(path)))

    def size(self, path: str) -> int:
        """Bytes of a file. Raises FileNotFoundError."""
        return int(self.info(path)["size"])

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading. Raises FileNotFoundError."""
        return self._fs.open(self.resolve(path), "rb")

    def read(self, path: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        return bytes(self._fs.cat_file(self.resolve(path)))

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file. Raises FileNotFoundError, or EOFError if it is shorter."""
        data = bytes(self._fs.cat_file(self.resolve(path), start=start, end=stop))
        if len(data) != stop - start:
            raise EOFError(f"{self.uri}/{path} ends before byte {stop}")
        return data

    def list_files(self, folder: str) -> list[str]:
        """The names of the files directly in a folder, sorted; none if there is no such folder."""
        return sorted(self.list_details(folder))

    def list_details(self, folder: str) -> dict[str, dict[str, Any]]:
        """The entries (as `info` gives them) of the files directly in a folder, by name."""
        try:
            entries = self._fs.ls(self.resolve(folder), detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        # A link is what it points to: the caches of model hubs consist of links.
        files = {
            entry["name"].rsplit("/", 1)[-1]: entry
            for entry in entries
            if entry["type"] == "file" or (entry.get("islink") and self._fs.isfile(entry["name"]))
        }
        return {name: entry for name, entry in files.items() if not name.startswith(".")}

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file atomically, replacing what was there."""
        with self.writing(path) as file:
            file.write(data)

    def put(self, path: str, local: Path) -> None:
        """Copy a local file here atomically, replacing what was there."""
        with open(local, "rb") as source, self.writing(path) as file:
            while block := source.read(1 << 22):
                file.write(block)

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        """A file open for writing that appears under its name only when the block ends well."""
        target = self.resolve(path)
        if not self.is_local:
            with self._fs.transaction, self._fs.open(target, "wb") as file:
                yield file
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(target).with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self.resolve(path))


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
