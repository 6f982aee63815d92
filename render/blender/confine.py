"""Confinement of the process that opens untrusted files: no network, and limits on resources.

`python -m render.blender.confine` prints whether this system allows it; exit code 1 if not.
"""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

__all__ = ["confine", "main"]

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
"""Constants of linux/sched.h."""
_LIMITS = {
    # A core dump of Blender has gigabytes and is never read.
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: 4096,
    resource.RLIMIT_FSIZE: 4 << 30,
}
"""Memory is limited by the parent: a limit on the address space would fail CUDA's reservations."""
_MAX_THREADS = 4096
"""Threads of a child and its processes, in a user namespace of its own, where those of other
processes are not counted. The kernel does not apply the limit to root."""


def confine() -> str:
    """Confine this process; return why the network could not be taken away, empty if it was.

    Call it before any thread is started, and before `prctl` settings, which a change of
    credentials clears.
    """
    problem = _leave_network()
    for kind, maximum in _LIMITS.items():
        _limit(kind, maximum)
    return problem


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
