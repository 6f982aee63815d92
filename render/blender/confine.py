"""What a process that opens strangers' files gives up first: the network, and without measure.

`python -m render.blender.confine` says whether this system allows all of it; 1 if not.
"""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

__all__ = ["confine", "main"]

_NEW_USERS, _NEW_NETWORK = 0x10000000, 0x40000000
"""CLONE_NEWUSER and CLONE_NEWNET of Linux."""
_LIMITS = {
    # A dump of Blender is gigabytes, and holds what nobody looks for.
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: 4096,
    resource.RLIMIT_FSIZE: 4 << 30,
}
"""Memory is watched from outside: a limit on addresses would forbid what CUDA reserves."""
_MOST_THREADS = 4096
"""Of all processes of a child together, where they are counted apart from those of others. The
kernel does not hold root to it."""


def confine() -> str:
    """Give up what can be given up; what the system refuses, empty if nothing.

    Before any thread is started, and before `prctl` settings, which new credentials clear.
    """
    problem = _leave_network()
    for kind, most in _LIMITS.items():
        _limit(kind, most)
    return problem


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (limit, limit))


def _leave_network() -> str:
    """Into a network of its own that has no way out, not even to this machine."""
    if sys.platform != "linux":
        return "only Linux can take the network away"
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_USERS | _NEW_NETWORK) == 0:
        # The same user inside as outside. AppArmor (Ubuntu 24.04) allows the namespace and refuses
        # the maps: then the user has no name inside, and files keep their owner all the same.
        with contextlib.suppress(PermissionError):
            for name, text in (
                ("uid_map", f"{user} {user} 1"),
                ("setgroups", "deny"),
                ("gid_map", f"{group} {group} 1"),
            ):
                (Path("/proc/self") / name).write_text(text)
        _limit(resource.RLIMIT_NPROC, _MOST_THREADS)
        return ""
    problem = os.strerror(ctypes.get_errno())
    if libc.unshare(_NEW_NETWORK) == 0:
        return ""
    return f"no network namespace: {problem}"


def main() -> int:
    """Try it in this process."""
    problem = confine()
    print(problem or "without network")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
