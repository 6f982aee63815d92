"""An exclusive lock on the root of a dataset, so that one command at a time writes shards there.

On a local folder it is a kernel lock (flock), which is released when the process ends, however it
ends. On an object store it is a lease: an object in the dataset that its holder renews. The lease
of a killed holder expires after a while; a process on the same machine sees that the holder is dead
and takes the lease over at once.
"""

import contextlib
import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from core.atomic import make_folder
from core.errors import BadInput, WorkFailed, cannot_write
from core.process_identity import LockHolder
from core.storage import Storage, storage_errors

__all__ = ["LEASE_SECONDS", "LockCheck", "LockHolder", "exclusive_lock", "lock_holder"]

LEASE_SECONDS = 120.0
"""Lifetime in seconds of a lease that is not renewed. The clocks of the machines must agree to
within a minute, because a holder renews its lease only after a quarter of this time."""
_RENEWALS = 4
"""Attempts to renew a lease during its lifetime."""
_MAX_ENTRY = 1 << 16
"""Bytes of a lock file that are read; an entry has a few hundred."""
_LEASES = "locks"
_LEASE = re.compile(r"\d{12}\.json")
"""Names of leases; other files in their folder are ignored."""

LockCheck = Callable[[], None]
"""A function that raises WorkFailed if the lock is no longer held; call it before each commit."""


@contextlib.contextmanager
def exclusive_lock(
    root: Storage,
    command: str,
    *,
    name: str = "shards",
    on_wait: Callable[[str], None] | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> Iterator[LockCheck]:
    """Hold the root's lock named `name` during a block and yield a function that checks it.

    If another process holds the lock: with `on_wait`, call it once with a message for the user and
    wait; without it, raise BadInput that names the holder.
    """
    holder = LockHolder.of_this_process(command)
    with contextlib.ExitStack() as stack:
        notified = False
        while True:
            try:
                check = stack.enter_context(
                    _flock(root, name, holder)
                    if root.is_local
                    else _lease(root, name, holder, lease_seconds)
                )
                break
            except _HeldByOther as other:
                if on_wait is None:
                    raise BadInput(
                        f"{root.uri}: {other} is writing here; only one may at a time: wait for "
                        "it, or give --wait"
                    ) from None
                if not notified:
                    on_wait(f"waiting for {other}")
                notified = True
                time.sleep(min(1.0, lease_seconds / _RENEWALS))
        yield check


def lock_holder(root: Storage, name: str = "shards") -> LockHolder | None:
    """Return the process that holds a lock of the root; None if it is free.

    A local lock may be held shared for an instant; `exclusive_lock` allows for that.
    """
    return _flock_holder(root, name) if root.is_local else _lease_holder(root, name)


class _HeldByOther(Exception):
    """Another process holds the lock; the message names it."""


@contextlib.contextmanager
def _flock(root: Storage, name: str, holder: LockHolder) -> Iterator[LockCheck]:
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_open_lock(root, name))
        # `_flock_holder` of another machine may have the file locked for an instant.
        if not (_try_flock(file, fcntl.LOCK_EX) or _try_flock(file, fcntl.LOCK_EX, wait=0.1)):
            # Without an entry, the holder has not written it yet.
            raise _HeldByOther(str(_read_holder(file) or "another command"))
        # The file is never deleted: after that, two processes could lock two files of this name.
        # On a full disk the lock counts without an entry: `lrm compact` frees space.
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(holder.dump())
        try:
            yield lambda: None
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


def _open_lock(root: Storage, name: str) -> IO[bytes]:
    """Open a lock file, which is created if there is none. Raises BadInput or WorkFailed.

    It is unbuffered: an entry that a full disk refuses is not written again at the end.
    """
    path = Path(root.resolve(f".{name}.lock"))
    problem = None
    try:
        make_folder(Path(root.uri))
        # Without waiting: the other end of a pipe may never be opened.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        if path.is_file():
            return open(descriptor, "r+b", buffering=0)
        os.close(descriptor)
    except OSError as error:
        problem = error
    if os.path.lexists(path) and not path.is_file():
        raise BadInput(f"{path}: this lock is not a file; if no command runs, `rm -rf {path}`")
    assert problem is not None
    raise cannot_write(f"{root.uri}: cannot write here", problem)


def _try_flock(file: IO[bytes], operation: int, wait: float = 0.0) -> bool:
    """Return whether the file could be locked at once, after a wait in seconds."""
    time.sleep(wait)
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_holder(file: IO[bytes]) -> LockHolder | None:
    """Return the entry of a lock file; None if it is empty or not complete."""
    file.seek(0)
    return LockHolder.load(file.read(_MAX_ENTRY))


def _flock_holder(root: Storage, name: str) -> LockHolder | None:
    """Return the holder of a lock file. A holder that ends by itself empties the file."""
    path = root.resolve(f".{name}.lock")
    if not Path(path).is_file():  # no process can hold anything else
        return None
    with contextlib.suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:
        holder = _read_holder(file)
        if holder is None:
            return None
        # Processes of another machine or container are not visible: try the lock for an instant.
        is_free = holder.is_dead() if holder.is_local else _try_flock(file, fcntl.LOCK_SH)
        return None if is_free else holder
    return None


def _lease_holder(root: Storage, name: str) -> LockHolder | None:
    """Return the holder of the newest lease; None if it has expired or the holder is dead."""
    folder = f"{_LEASES}/{name}"
    for file in reversed(_leases(root, folder)):
        # A new holder deletes the older leases.
        with contextlib.suppress(FileNotFoundError):
            holder = LockHolder.load(root.read(f"{folder}/{file}"))
            is_held = holder and holder.expires > time.time() and not holder.is_dead()
            return holder if is_held else None
    return None


def _leases(root: Storage, folder: str) -> list[str]:
    """Return the names of the leases in a folder, the newest last."""
    return [file for file in root.list_files(folder) if _LEASE.fullmatch(file)]


@contextlib.contextmanager
def _lease(root: Storage, name: str, holder: LockHolder, seconds: float) -> Iterator[LockCheck]:
    lease = _Lease(root, name, holder, seconds)
    lease.acquire()
    try:
        yield lease.check
    finally:
        lease.release()


class _Lease:
    """A lease on an object store: a numbered object that is created only if it does not exist.

    The object with the highest number is the current lease. To take over an expired lease, a
    process creates the next number: if several try at the same time, the store lets one succeed.
    No object is deleted that another process may just have written.
    """

    def __init__(self, root: Storage, name: str, holder: LockHolder, seconds: float) -> None:
        self._folder = f"{_LEASES}/{name}"
        self._root = root
        self._holder = holder
        self._seconds = seconds
        self._number = 0
        self._held_until = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def acquire(self) -> None:
        """Acquire the lease and renew it in a thread. Raises _HeldByOther."""
        newest = self._newest()
        if newest:
            path = self._path(newest)
            holder = LockHolder.load(self._root.read(path))
            if holder is None:
                raise BadInput(
                    f"{self._root.uri}/{path}: cannot read this lock, which another command may "
                    "hold; if none writes to the dataset, delete this object"
                )
            if holder.expires > time.time() and not holder.is_dead():
                raise _HeldByOther(str(holder))
        self._number = newest + 1
        extended = self._extended()
        try:
            self._root.create(self._path(self._number), extended.dump())
        except FileExistsError:
            raise _HeldByOther("another command, which started at the same time,") from None
        self._held_until = extended.expires
        for file in _leases(self._root, self._folder):
            if file < _lease_name(newest):
                self._root.delete(f"{self._folder}/{file}")
        self._thread.start()

    def check(self) -> None:
        """Raise WorkFailed if the lease was lost."""
        if time.time() >= self._held_until:
            raise WorkFailed(
                f"{self._root.uri}: the lock could not be renewed in time, and another command may "
                "hold it now; nothing more was recorded. Run the same command again to continue"
            )

    def release(self) -> None:
        """Stop renewing the lease, and mark it as released if it has not expired."""
        self._ended.set()
        self._thread.join()
        if time.time() < self._held_until:
            self._root.write(self._path(self._number), replace(self._holder, expires=0.0).dump())

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / _RENEWALS):
            # Errors of the storage are ignored: the renewal is retried until the lease expires.
            with contextlib.suppress(*storage_errors()):
                extended = self._extended()
                if time.time() >= self._held_until or self._newest() != self._number:
                    self._held_until = 0.0
                    return
                self._root.write(self._path(self._number), extended.dump())
                self._held_until = extended.expires

    def _extended(self) -> LockHolder:
        return replace(self._holder, expires=time.time() + self._seconds)

    def _newest(self) -> int:
        names = _leases(self._root, self._folder)
        return int(names[-1].removesuffix(".json")) if names else 0

    def _path(self, number: int) -> str:
        return f"{self._folder}/{_lease_name(number)}"


def _lease_name(number: int) -> str:
    return f"{number:012d}.json"
