"""The start of a process that opens untrusted files: no network, and limits on resources.

`python -m core.confined.confine` prints whether this system allows it; exit code 1 if not. The
module imports only the standard library, because the Blender child uses it.
"""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
from pathlib import Path

__all__ = ["confine", "end_with_parent", "main", "take_channel"]

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
"""Constants of linux/sched.h."""
_PR_SET_PDEATHSIG = 1
"""Constant of linux/prctl.h."""
_LIMITS = {
    # A core dump of Blender has gigabytes and is never read.
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: 4096,
}
"""Memory is limited by the parent: a limit on the address space would fail CUDA's reservations."""
_MAX_THREADS = 4096
"""Threads of a child and its processes, in a user namespace of its own, where those of other
processes are not counted. The kernel does not apply the limit to root."""


def confine(max_file_bytes: int = 4 << 30) -> str:
    """Confine this process; return why the network could not be taken away, empty if it was.

    `max_file_bytes` limits the files that it writes. Call it before any thread is started, and
    before `end_with_parent`, which a change of credentials undoes.
    """
    problem = _leave_network()
    for kind, maximum in (_LIMITS | {resource.RLIMIT_FSIZE: max_file_bytes}).items():
        _limit(kind, maximum)
    return problem


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends for any reason."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent process ended before this child had started")


def take_channel() -> socket.socket:
    """Return the socket that is the standard input, which becomes an empty file instead."""
    channel = socket.socket(fileno=os.dup(0))
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return channel


def _limit(kind: int, maximum: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = maximum if hard == resource.RLIM_INFINITY else min(maximum, hard)
    resource.setrlimit(kind, (limit, limit))


def _leave_network() -> str:
    """Move this process into a network namespace without any connection, not even to localhost.

    Returns why it failed, empty if it did not.
    """
    if sys.platform != "linux":
        return "network namespaces exist on Linux only"
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        # Map the user to itself. AppArmor (Ubuntu 24.04) allows the namespace but not the maps: the
        # user then has no name inside, and files still keep their owner.
        with contextlib.suppress(PermissionError):
            for name, text in (
                ("uid_map", f"{user} {user} 1"),
                ("setgroups", "deny"),
                ("gid_map", f"{group} {group} 1"),
            ):
                (Path("/proc/self") / name).write_text(text)
        _limit(resource.RLIMIT_NPROC, _MAX_THREADS)
        return ""
    problem = os.strerror(ctypes.get_errno())
    if libc.unshare(_CLONE_NEWNET) == 0:
        return ""
    return f"no network namespace: {problem}"


def main() -> int:
    """Confine this process and print the result."""
    problem = confine()
    print(problem or "confined: no network")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
