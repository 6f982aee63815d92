"""The files of a local folder, with the entries that cannot be read."""

import errno
import os
import stat
from collections.abc import Callable, Iterator

from core.paths.regular_file import file_kind_problem

__all__ = ["local_version", "scan"]

_OF_ONE_ENTRY = frozenset({errno.ELOOP, errno.ENOENT, errno.EACCES, errno.EPERM})
"""Errors of a single entry of a folder: a link to itself or to nothing, a file that was removed
meanwhile, or one of another user. Others are those of the disk or the network."""


def scan(
    folder: str, prefix: str, deep: bool, on_problem: Callable[[str, str], None]
) -> Iterator[tuple[str, str]]:
    """Yield paths and versions of local files with one system call per entry, for speed.

    `prefix` is that of the paths, and `on_problem` receives the path of every entry that cannot be
    read, and why; a folder's path ends with `/`.
    """
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if not prefix or error.errno not in _OF_ONE_ENTRY:
            raise
        on_problem(prefix, error.strerror or str(error))
        return
    for entry in visible:
        path = prefix + entry.name
        try:
            if entry.is_dir(follow_symlinks=False):
                on_problem(path, "is a folder")
                if deep:
                    yield from scan(entry.path, f"{path}/", deep, on_problem)
                continue
            status = entry.stat()
        except OSError as error:
            if error.errno not in _OF_ONE_ENTRY:
                raise
            on_problem(path, error.strerror or str(error))
            continue
        if stat.S_ISREG(status.st_mode):
            yield path, local_version(status)
        else:
            on_problem(path, file_kind_problem(status.st_mode) or "is a link to a folder")


def local_version(status: os.stat_result) -> str:
    """Return a fingerprint of a local file: its size and modification time."""
    return f"{status.st_size}-{status.st_mtime_ns}"
