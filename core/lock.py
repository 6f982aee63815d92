"""One writer of shards at a time: an exclusive lock on the root of a dataset.

On a local folder the kernel holds the lock (flock) and releases it with the process, however that
ends. An object store has no kernel: there a lease lies beside the data, which its holder renews. It
runs out some time after a holder that was killed, and counts at once for nothing on the machine
where that was.
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
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from core.errors import BadInput, WorkFailed
from core.storage import Storage, storage_errors

__all__ = ["LEASE_SECONDS", "Check", "exclusive"]

LEASE_SECONDS = 120.0
"""A lease that was not renewed for so long is free. The clocks of all machines must agree better
than that."""
_RENEWALS = 4
"""Per lease: three may fail before it is lost."""
_LEASES = "locks"
_START_FIELD = 22
"""Of /proc/PID/stat, proc(5)."""

Check = Callable[[], None]
"""Raises WorkFailed if the lock is no longer held; asked before every attempt to
record something."""


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """Who holds a lock, as it is written into it."""

    command: str
    host: str
    pid: int
    since: str
    token: str
    expires: float = 0.0
    """Seconds since 1970, of a lease; 0 = released."""
    kernel: str = ""
    """Where the process id means something: a boot of a machine, and a namespace of ids there."""
    started: str = ""
    """When the process was, by that kernel: ids are given again."""

    @classmethod
    def of_this_process(cls, command: str) -> "_Holder":
        return cls(
            command=command,
            host=socket.gethostname(),
            pid=os.getpid(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            token=uuid.uuid4().hex,
            kernel=_kernel(),
            started=_started(os.getpid()),
        )

    def is_dead(self) -> bool:
        """Whether it was a process of this very machine, and is none any more."""
        return bool(self.kernel) and self.kernel == _kernel() and _started(self.pid) != self.started

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    def __str__(self) -> str:
        return f"`{self.command}` on {self.host} (process {self.pid}, since {self.since})"


@contextlib.contextmanager
def exclusive(
    root: Storage,
    command: str,
    *,
    what: str = "shards",
    on_wait: Callable[[str], None] | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> Iterator[Check]:
    """Hold one of the root's locks (`what`: of those that write it) for the length of a block.

    If somebody else holds it: with `on_wait`, call it once with a line for the user and wait;
    without, raise BadInput that names the holder.
    """
    me = _Holder.of_this_process(command)
    with contextlib.ExitStack() as stack:
        told = False
        while True:
            try:
                check = stack.enter_context(
                    _flock(root, what, me)
                    if root.is_local
                    else _lease(root, what, me, lease_seconds)
                )
                break
            except _HeldByOther as held:
                if on_wait is None:
                    raise BadInput(
                        f"{root.uri}: {held} is writing here; only one may at a time: wait for it, "
                        "or give --wait"
                    ) from None
                if not told:
                    on_wait(f"waiting for {held}")
                told = True
                time.sleep(min(1.0, lease_seconds / _RENEWALS))
        yield check


def _kernel() -> str:
    """Empty where a system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """In ticks since the machine's boot; empty for no process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The second field is a name in brackets, which may hold anything.
    return stat.rpartition(")")[2].split()[_START_FIELD - 3]


class _HeldByOther(Exception):
    """The lock is taken; the text names the holder."""


@contextlib.contextmanager
def _flock(root: Storage, what: str, me: _Holder) -> Iterator[Check]:
    with contextlib.ExitStack() as stack:
        try:
            Path(root.uri).mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(root.resolve(f".{what}.lock"), "a+b"))
        except OSError as error:
            raise BadInput(f"{root.uri}: cannot write here: {error.strerror or error}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _HeldByOther(_read_holder(file)) from None
        # The file stays for ever: a lock on a name that was removed would exclude nobody.
        file.truncate(0)
        file.write(me.dump())
        file.flush()
        try:
            yield lambda: None
        finally:
            file.truncate(0)


def _read_holder(file: IO[bytes]) -> str:
    file.seek(0)
    try:
        return str(_Holder(**json.loads(file.read())))
    except (ValueError, TypeError):
        return "another command"  # it has the lock and has not said its name yet


@contextlib.contextmanager
def _lease(root: Storage, what: str, me: _Holder, seconds: float) -> Iterator[Check]:
    lease = _Lease(root, what, me, seconds)
    lease.acquire()
    try:
        yield lease.check
    finally:
        lease.release()


class _Lease:
    """A lease is a numbered object, created on the condition that it is not there yet.

    The greatest number counts. Whoever takes over an expired lease creates the next number, so of
    several that try at once the store lets one succeed, and nothing is ever deleted that another
    might just have written.
    """

    def __init__(self, root: Storage, what: str, me: _Holder, seconds: float) -> None:
        self._folder = f"{_LEASES}/{what}"
        self._root = root
        self._me = me
        self._seconds = seconds
        self._number = 0
        self._held_until = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def acquire(self) -> None:
        """Take the lease and keep it. Raises _HeldByOther."""
        newest = self._newest()
        if newest:
            holder = _Holder(**json.loads(self._root.read(self._path(newest))))
            if holder.expires > time.time() and not holder.is_dead():
                raise _HeldByOther(str(holder))
        self._number = newest + 1
        mine = self._extended()
        try:
            self._root.create(self._path(self._number), mine.dump())
        except FileExistsError:
            raise _HeldByOther("another command, which was a moment faster,") from None
        self._held_until = mine.expires
        for name in self._root.list_files(self._folder):
            if name < _lease_name(newest):
                self._root.delete(f"{self._folder}/{name}")
        self._thread.start()

    def check(self) -> None:
        """Raise WorkFailed if the lease was lost."""
        if time.time() >= self._held_until:
            raise WorkFailed(
                f"{self._root.uri}: the lock could not be renewed in time and may be another's "
                "now; nothing more is recorded. The same command goes on"
            )

    def release(self) -> None:
        """End the renewal; the lease is free at once if it is still ours."""
        self._ended.set()
        self._thread.join()
        if time.time() < self._held_until:
            self._root.write(self._path(self._number), replace(self._me, expires=0.0).dump())

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / _RENEWALS):
            # A storage that fails for a moment is asked again until the lease has run out.
            with contextlib.suppress(*storage_errors()):
                mine = self._extended()
                if time.time() >= self._held_until or self._newest() != self._number:
                    self._held_until = 0.0
                    return
                self._root.write(self._path(self._number), mine.dump())
                self._held_until = mine.expires

    def _extended(self) -> _Holder:
        return replace(self._me, expires=time.time() + self._seconds)

    def _newest(self) -> int:
        names = self._root.list_files(self._folder)
        return int(names[-1].removesuffix(".json")) if names else 0

    def _path(self, number: int) -> str:
        return f"{self._folder}/{_lease_name(number)}"


def _lease_name(number: int) -> str:
    return f"{number:012d}.json"
