"""Identity of a process on this machine, which tells whether it still runs after its id is reused.

The process id alone is not enough: containers number their processes independently, and an id is
reused after a restart.
"""

import getpass
import os
from pathlib import Path

__all__ = ["has_ended", "kernel_scope", "start_ticks", "user_name"]

_START_FIELD = 22
"""Number of the field `starttime` in /proc/PID/stat, see proc(5)."""


def kernel_scope() -> str:
    """Return the boot id and process namespace; an empty string where /proc does not have them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
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
