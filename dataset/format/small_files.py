"""Reads of many small files of an object store: each is requested once, as a whole.

A reader of Parquet sends two requests for each file and query: one for the end of the file, and one
for the columns. That takes more time than the bytes of a small file.
"""

from collections.abc import Mapping
from functools import lru_cache

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSystem, FSSpecHandler, PyFileSystem

from core.storage import Storage

__all__ = ["reading_small_files_once"]

_SMALL = 1 << 19
"""Bytes of a file that is read as a whole."""
_KEPT = 128
"""Files that a process keeps in memory."""


def reading_small_files_once(
    files: FileSystem, folder: str, sizes: Mapping[str, int]
) -> FileSystem:
    """Return a file system for reading immutable files of a folder, with these sizes by name.

    `files` reads the large ones.
    """
    return PyFileSystem(_SmallFiles(files, folder, sizes))


class _SmallFiles(FSSpecHandler):
    """The files of a folder, of which the small ones are read as a whole."""

    def __init__(self, files: FileSystem, folder: str, sizes: Mapping[str, int]) -> None:
        super().__init__(files)
        self._folder = folder
        self._sizes = sizes

    def get_type_name(self) -> str:
        return "small files"

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        return list(self.fs.get_file_info(paths))

    def open_input_file(self, path: str) -> pa.NativeFile:
        size = self._sizes.get(path)
        if size is None or size > _SMALL:
            return self.fs.open_input_file(path)
        return pa.BufferReader(_content(self._folder, path, size))


@lru_cache(_KEPT)
def _content(folder: str, name: str, size: int) -> bytes:
    """Return the content of a file, which never changes. Raises OSError; this is not cached."""
    data = Storage(folder).read(name)
    if len(data) != size:
        raise OSError(f"{folder}/{name} has {len(data)} bytes instead of {size}")
    return data
