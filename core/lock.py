"""An exclusive lock on the root of a dataset, so that one command at a time writes shards there.

On a local folder it is a kernel lock (flock), which is released when the process ends, however it
ends. On an object store it is a lease: an object in the dataset that its holder renews. The lease
of a killed holder expires after a while; a process on the same machine sees that the holder is dead
and takes the lease over at once.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from core.atomic import make_folder
from core.errors import BadInput, WorkFailed, cannot_write
from core.process_identity import has_ended, kernel_scope, start_ticks, user_name
from core.storage import Storage, storage_errors

__all__ = ["LEASE_SECONDS", "LockCheck", "LockHolder", "exclusive_lock", "lock_holder"]

LEASE_SECONDS = 120.0
"""Lifetime in seconds of a lease that is not renewed. The clocks of the machines must agree to
within a minute, because a holder renews its lease only after a quarter of this time."""
_RENEWALS = 4
"""Attempts to renew a lease during its lifetime."""
_LEASES = "locks"

LockCheck = Callable[[], None]
"""A function that raises WorkFailed if the lock is no longer held; call it before each commit."""


@dataclass(frozen=True, kw_only=True)
class LockHolder:
    """The process that holds a lock, as stored in the lock."""

    command: str
    host: str
    pid: int
    since: str
    token: str
    expires: float = 0.0
    """Expiry of a lease in seconds since 1970; 0 if it was released."""
    kernel: str = ""
    """Scope of the process id: the machine's boot id and its process namespace; may be empty."""
    started: str = ""
    """Start time of the process in clock ticks; tells it from a later process with the same id."""
    user: str = ""
    """Name of the user; empty in the locks of earlier versions."""

    def to_dict(self) -> dict[str, Any]:
        """Return the values that users are shown, for JSON."""
        return {name: getattr(self, name) for name in ("command", "user", "host", "pid", "since")}

    @property
    def is_local(self) -> bool:
        """Whether this process sees the holder's process id."""
        return bool(self.kernel) and self.kernel == kernel_scope()

    @classmethod
    def of_this_process(cls, command: str) -> "LockHolder":
        return cls(
            command=command,
            host=socket.gethostname(),
            pid=os.getpid(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            token=uuid.uuid4().hex,
            kernel=kernel_scope(),
            started=start_ticks(os.getpid()),
            user=user_name(),
        )

    @classmethod
    def load(cls, data: bytes) -> "LockHolder":
        """Return a stored holder. Values that only a later version stores are ignored."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in json.loads(data).items() if name in names})

    def is_dead(self) -> bool:
        """Return whether the holder ran on this machine and has ended."""
        return has_ended(self.pid, self.kernel, self.started)

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    def __str__(self) -> str:
        by = f" by {self.user}" if self.user else ""
        return f"`{self.command}`{by} on {self.host} (process {self.pid}, since {self.since})"


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
        try:
            make_folder(Path(root.uri))
            # Unbuffered: an entry that a full disk refuses is not written again at the end.
            file = stack.enter_context(open(root.resolve(f".{name}.lock"), "a+b", buffering=0))
        except OSError as error:
            raise cannot_write(f"{root.uri}: cannot write here", error) from None
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
            file.truncate(0)


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
    try:
        return LockHolder.load(file.read())
    except (ValueError, TypeError, AttributeError):
        return None


def _flock_holder(root: Storage, name: str) -> LockHolder | None:
    """Return the holder of a lock file. A holder that ends by itself empties the file."""
    path = root.resolve(f".{name}.lock")
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
    for file in reversed(root.list_files(folder)):
        # A new holder deletes the older leases.
        with contextlib.suppress(FileNotFoundError):
            holder = LockHolder.load(root.read(f"{folder}/{file}"))
            return holder if holder.expires > time.time() and not holder.is_dead() else None
    return None


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
            holder = LockHolder.load(self._root.read(self._path(newest)))
            if holder.expires > time.time() and not holder.is_dead():
                raise _HeldByOther(str(holder))
        self._number = newest + 1
        extended = self._extended()
        try:
            self._root.create(self._path(self._number), extended.dump())
        except FileExistsError:
            raise _HeldByOther("another command, which started at the same time,") from None
        self._held_until = extended.expires
        for file in self._root.list_files(self._folder):
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
        names = self._root.list_files(self._folder)
        return int(names[-1].removesuffix(".json")) if names else 0

    def _path(self, number: int) -> str:
        return f"{self._folder}/{_lease_name(number)}"


def _lease_name(number: int) -> str:
    return f"{number:012d}.json"
