"""Scratch folders in the folder of temporary files, each locked by the process that owns it.

A killed process removes nothing. Its lock ends with it, so the next process that creates a scratch
folder removes those that no process holds. A lock is valid for all containers of a machine and
after a restart, unlike a process id. A folder on a file system without locks is not removed.
"""

import contextlib
import fcntl
import functools
import os
import shutil
import tempfile
import weakref
from pathlib import Path

__all__ = ["ScratchFolder", "remove_orphans", "scratch_folder"]

_PREFIX = "lrm-scratch-"
_UNLOCKED = "lrm-unlocked-"


class ScratchFolder:
    """A new folder that only this user can enter. As a context manager it yields its path."""

    def __init__(self, purpose: str, parent: Path | None = None) -> None:
        """Create the folder in `parent`, by default in the folder of temporary files."""
        parent = parent or Path(tempfile.gettempdir())
        _remove_orphans_once(parent)
        self.name, lock = _create_locked(purpose, parent)
        self.removal = weakref.finalize(self, _remove, self.name, lock)
        """Removes the folder at the end of this object or process, if `cleanup` has not."""

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *error: object) -> None:
        self.cleanup()

    def cleanup(self) -> None:
        """Remove the folder, if it exists."""
        # Calling the finalizer has no effect late in the end of a process.
        if removal := self.removal.detach():
            _, remove, arguments, _ = removal
            remove(*arguments)


def scratch_folder(purpose: str) -> ScratchFolder:
    """Return a new folder in the folder of temporary files; `purpose` is a part of its name."""
    return ScratchFolder(purpose)


def remove_orphans(parent: Path) -> list[Path]:
    """Remove the scratch folders of this user whose owner has ended; return their paths."""
    removed = []
    for path in sorted(parent.glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid != os.getuid():
                continue
            lock = _lock(path)
            try:
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
            removed.append(path)
    return removed


@functools.cache
def _remove_orphans_once(parent: Path) -> None:
    remove_orphans(parent)


def _create_locked(purpose: str, parent: Path) -> tuple[str, int | None]:
    """Return a new folder, and the descriptor that holds its lock; None if it cannot be locked."""
    while True:
        folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-", dir=parent)
        try:
            lock = _lock(Path(folder))
        except (BlockingIOError, FileNotFoundError):
            continue  # another process takes it for an orphan, because it was not locked yet
        except OSError:
            shutil.rmtree(folder)
            return tempfile.mkdtemp(prefix=f"{_UNLOCKED}{purpose}-", dir=parent), None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(folder), os.fstat(lock)):
                return folder, lock
        os.close(lock)


def _remove(folder: str, lock: int | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _lock(folder: Path) -> int:
    """Open and lock a folder, which must not be a link.

    Raises BlockingIOError if another process holds the lock, or another OSError.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
