"""Scratch folders in the folder of temporary files, each locked by the process that owns it.

A killed process removes nothing. Its lock ends with it, so the next process that creates a scratch
folder removes those that no process holds. A lock is valid for all containers of a machine, unlike
a process id, but not for other machines that share a disk. The name therefore contains a digest of
the kernel's boot, and folders of another boot stay, as does one that cannot be locked.
"""

import base64
import contextlib
import fcntl
import functools
import hashlib
import os
import secrets
import tempfile
import weakref
from pathlib import Path

from core.paths.remove_path import remove_path
from core.process_identity import boot_id

__all__ = ["ScratchFolder", "remove_orphans", "scratch_folder"]

_PREFIX = "lrm-scratch-"
_UNLOCKED = "lrm-unlocked-"
_BOOT_LETTERS, _RANDOM_LETTERS = 6, 4
"""Few, because names of sockets in these folders are limited; a name that exists is not used."""


class ScratchFolder:
    """A new folder that only this user can enter. As a context manager it yields its path."""

    def __init__(self, purpose: str, parent: Path | None = None) -> None:
        """Create the folder in `parent`, by default in the folder of temporary files."""
        parent = parent or Path(tempfile.gettempdir())
        _remove_orphans_once(parent)
        self.name, lock = _create_locked(purpose, parent)
        self.removal = weakref.finalize(self, _remove, self.name, lock, os.getpid())
        """Removes the folder at the end of this object or process, if `cleanup` has not."""

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *error: object) -> None:
        self.cleanup()

    def cleanup(self) -> None:
        """Remove the folder, if it exists; also after the finalizers of this process have run."""
        if work := self.removal.detach():
            _, function, arguments, _ = work
            function(*arguments)


def scratch_folder(purpose: str) -> ScratchFolder:
    """Return a new folder in the folder of temporary files; `purpose` is a part of its name."""
    return ScratchFolder(purpose)


def remove_orphans(parent: Path) -> list[Path]:
    """Remove scratch folders of this user and boot whose owner has ended; return their paths."""
    removed = []
    own = f"{_PREFIX}*-{_boot()}{'?' * _RANDOM_LETTERS}"
    for path in sorted(parent.glob(own) if _boot() else ()):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid != os.getuid():
                continue
            lock = _lock(path)
            try:
                remove_path(path, ignore_errors=True)
            finally:
                os.close(lock)
            removed.append(path)
    return removed


@functools.cache
def _remove_orphans_once(parent: Path) -> None:
    remove_orphans(parent)


@functools.cache
def _boot() -> str:
    """Return letters for the boot of this kernel; an empty text if it is unknown."""
    boot = boot_id()
    digest = base64.b32encode(hashlib.sha256(boot.encode()).digest()).decode().lower()
    return digest[:_BOOT_LETTERS] if boot else ""


def _create_locked(purpose: str, parent: Path) -> tuple[str, int | None]:
    """Return a new folder, and the descriptor that holds its lock; None if it cannot be locked."""
    while True:
        folder = parent / f"{_PREFIX}{purpose}-{_boot()}{_random_letters()}"
        try:
            folder.mkdir(0o700)
        except FileExistsError:
            continue
        try:
            lock = _lock(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process takes it for an orphan, because it was not locked yet
        except OSError:
            folder.rmdir()
            return tempfile.mkdtemp(prefix=f"{_UNLOCKED}{purpose}-", dir=parent), None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(folder), os.fstat(lock)):
                return str(folder), lock
        os.close(lock)


def _random_letters() -> str:
    return base64.b32encode(secrets.token_bytes(5)).decode().lower()[:_RANDOM_LETTERS]


def _remove(folder: str, lock: int | None, owner: int) -> None:
    """Remove a folder, unless this process is a fork of its owner."""
    if os.getpid() == owner:
        remove_path(folder, ignore_errors=True)
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
