"""Identity of a process, which tells whether it still runs after its id is reused.

The process id alone is not enough: containers number their processes independently, and an id is
reused after a restart.
"""

import getpass
import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["LockHolder", "boot_id", "has_ended", "kernel_scope", "start_ticks", "user_name"]

_START_FIELD = 22
"""Number of the field `starttime` in /proc/PID/stat, see proc(5)."""
_MAX_LEASE_SECONDS = 86400.0
"""A lease that expires later than this from now is damaged."""


def kernel_scope() -> str:
    """Return the boot id and process namespace; an empty string where /proc does not have them."""
    boot = boot_id()
    try:
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}" if boot else ""
    except OSError:
        return ""


def boot_id() -> str:
    """Return the id of the kernel's boot; an empty string where /proc does not have it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def user_name() -> str:
    """Return the name of the user, or the number of one without an entry in the system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def start_ticks(pid: int) -> str:
    """Return a process's start in ticks since boot; an empty string if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The second field is the command's name in brackets, which may contain spaces and brackets.
    fields = stat.rpartition(")")[2].split()
    # Z and X: it has ended, and its parent has not collected its exit code yet.
    return "" if fields[0] in "ZX" else fields[_START_FIELD - 3]


def has_ended(pid: int, kernel: str, started: str) -> bool:
    """Return whether a process ran on this machine and has ended; False if it ran on another one.

    `kernel` and `started` are the results of the functions above when it ran.
    """
    return bool(kernel) and kernel == kernel_scope() and start_ticks(pid) != started


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
    def load(cls, data: bytes) -> "LockHolder | None":
        """Return a stored holder; None if the data is none: empty, incomplete or damaged.

        Values that only a later version stores are ignored.
        """
        try:
            stored = json.loads(data)
            values = {
                field.name: stored[field.name] for field in fields(cls) if field.name in stored
            }
            holder = cls(**values)
        except (ValueError, TypeError, RecursionError):
            return None
        texts = (value for name, value in values.items() if name not in ("pid", "expires"))
        is_valid = (
            all(isinstance(text, str) for text in texts)
            and type(holder.pid) is int
            and type(holder.expires) in (int, float)
            # Otherwise a damaged number would hold a lease for ever.
            and holder.expires < time.time() + _MAX_LEASE_SECONDS
        )
        return holder if is_valid else None

    def is_dead(self) -> bool:
        """Return whether the holder ran on this machine and has ended."""
        return has_ended(self.pid, self.kernel, self.started)

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    def __str__(self) -> str:
        by = f" by {self.user}" if self.user else ""
        return f"`{self.command}`{by} on {self.host} (process {self.pid}, since {self.since})"
