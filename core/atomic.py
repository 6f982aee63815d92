"""Atomic writes on local disk: a path holds its old content or all of the new content.

Content is written to a temporary file or folder next to its target, which is then renamed. Its
name starts with a dot, so the listings of `core.storage` omit it. If the block raises an error, it
is removed. If the process is killed, it stays: `lrm compact` removes such files from a dataset, and
the next writer of the same folder removes a temporary folder.

A file is flushed to disk (fsync) before it is renamed. Otherwise a power loss could leave an empty
file under the target's name. Pass `sync=False` only where every reader verifies the content, as in
caches and downloads. Folders are not flushed, because that is slow with many small files; after
a power loss their writers must run again. The rename itself is not flushed: after a power loss the
old content may be back.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from core.errors import is_disk_full

__all__ = ["atomic_file", "atomic_folder", "atomic_write", "move_file"]

_MAX_NAME = 100
"""Characters of the target's name that a temporary name contains; file systems allow 255 bytes."""


@contextlib.contextmanager
def atomic_file(target: Path, *, sync: bool = True, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path and rename it to `target` if the block raises no error.

    Several processes may write the same target: the last one to finish wins. With
    `overwrite=False` the first one wins, and the others raise FileExistsError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The random part is the last suffix: torch.save stores its file's name without that suffix, so
    # the bytes do not depend on it.
    temporary = target.with_name(f".{target.name[:_MAX_NAME]}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        if sync:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        if overwrite:
            temporary.replace(target)
        else:
            os.link(temporary, target)
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
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a new temporary folder and rename it to `target` if the block raises no error.

    Only one process at a time may write a target. Raises OSError if `target` is a non-empty folder
    when the block ends; a caller that replaces a folder removes it as the last step of the block.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(temporary)  # left by a process that was killed
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move_file(source: Path, target: Path) -> None:
    """Move a file to its target atomically, also between file systems, without flushing it."""
    try:
        source.replace(target)
    except OSError:  # another file system
        with atomic_file(target, sync=False) as temporary:
            shutil.copyfile(source, temporary)
        source.unlink()
