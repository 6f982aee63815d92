"""Atomic writes on local disk: a path holds its old content or all of the new content.

Content is written to a temporary file or folder next to its target, which is then renamed. Its
name starts with a dot, so the listings of `core.storage` omit it. If the block raises an error, it
is removed. If the process is killed, it stays: `lrm compact` removes such files from a dataset, and
the next writer of the same folder removes a temporary folder.

What is written is durable when the block has ended: the file is flushed to disk (fsync) before it
is renamed, and its folder afterwards, as is the parent of every folder that is created. So a loss
of power leaves the old content or the new one; and a file that is written after another one is
never there without it. Pass `sync=False` only where every reader verifies the content, as in caches
and downloads: after a loss of power such a file may be empty, cut or gone.
"""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.errors import is_disk_full
from core.paths.remove_path import remove_path

__all__ = [
    "atomic_file",
    "atomic_folder",
    "atomic_write",
    "flush",
    "flush_tree",
    "make_folder",
    "move_file",
]

_MAX_NAME = 100
"""Characters of the target's name that a temporary name contains; file systems allow 255 bytes."""
_FLUSHING_THREADS = 16
_CANNOT_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF})
"""Errors of file systems that cannot flush a folder, and of folders that cannot be listed."""


def flush(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder, to disk.

    A folder on a file system that cannot do that is left as it is.
    """
    is_folder = path.is_dir()
    try:
        # Opening a named pipe would wait for its other end; flushing it is an error.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not is_folder or error.errno not in _CANNOT_FLUSH:
            raise


def flush_tree(folder: Path) -> None:
    """Flush every file and folder below a folder, and the folder itself.

    Files are flushed by several threads, because the file system then writes its journal once for
    many of them: a fifth of the time for a hundred pictures.
    """
    paths = [path for path in folder.rglob("*") if not path.is_symlink()]
    with ThreadPoolExecutor(_FLUSHING_THREADS) as threads:
        # list() raises the first error.
        list(threads.map(flush, [path for path in paths if path.is_file()]))
    for path in (*(path for path in paths if path.is_dir()), folder):
        flush(path)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents durably; it may exist."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for created in reversed(missing):
        flush(created.parent)


@contextlib.contextmanager
def atomic_file(target: Path, *, sync: bool = True, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path and rename it to `target` if the block raises no error.

    Several processes may write the same target: the last one to finish wins. With
    `overwrite=False` the first one wins, and the others raise FileExistsError.
    """
    if sync:
        make_folder(target.parent)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
    # The random part is the last suffix: torch.save stores its file's name without that suffix, so
    # the bytes do not depend on it.
    temporary = target.with_name(f".{target.name[:_MAX_NAME]}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        if sync:
            flush(temporary)
        if overwrite:
            temporary.replace(target)
        else:
            os.link(temporary, target)
            temporary.unlink()
        if sync:
            flush(target.parent)
    except OSError as error:
        if is_disk_full(error) and error.filename is None:
            error.filename = str(target)  # the system names no file if a write fails
        raise
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(target: Path, data: bytes | str, *, overwrite: bool = True) -> None:
    """Write a whole file atomically, text as UTF-8; see `atomic_file`."""
    with atomic_file(target, overwrite=overwrite) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def atomic_folder(target: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a new temporary folder and rename it to `target` if the block raises no error.

    With `sync`, all files in it are flushed first. Only one process at a time may write a target.
    Raises OSError if `target` is a file or a non-empty folder when the block ends; a caller that
    replaces it removes it as the last step of the block (`core.paths.remove_path`).
    """
    temporary = target.with_name(f".{target.name}.tmp")
    remove_path(temporary)  # left by a process that was killed
    make_folder(target.parent)
    temporary.mkdir()
    try:
        yield temporary
        if sync:
            flush_tree(temporary)
        temporary.rename(target)
        if sync:
            flush(target.parent)
    finally:
        remove_path(temporary, ignore_errors=True)


def move_file(source: Path, target: Path) -> None:
    """Move a file to its target atomically, also between file systems, without flushing it."""
    try:
        source.replace(target)
    except OSError:  # another file system
        with atomic_file(target, sync=False) as temporary:
            shutil.copyfile(source, temporary)
        source.unlink()
