"""Files that a user names: opened only if reading them comes to an end."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

__all__ = ["file_kind_problem", "open_regular", "read_regular", "require_regular"]

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def file_kind_problem(mode: int) -> str:
    """Return why a file of this mode (`st_mode`) is not read; empty for files and folders."""
    kind = _KINDS.get(stat.S_IFMT(mode))
    return "" if kind is None else f"is {kind}, not a regular file"


def open_regular(path: str | Path, mode: str = "r", **options: Any) -> Any:
    """Open a file for reading, as `open` does, if it is a regular one.

    Raises OSError for named pipes, sockets and devices, from which reading may never end. A pipe
    that this process was started with, such as `<(zcat ids.gz)` in a shell, is read.
    """
    return open(path, mode, opener=_open, **options)


def read_regular(path: str | Path) -> bytes:
    """Return the content of a file if `open_regular` can open it. Raises OSError."""
    with open_regular(path, "rb") as file:
        return bytes(file.read())


def require_regular(path: str | Path) -> None:
    """Raise OSError unless `open_regular` can open a file; for libraries that open it."""
    os.close(_open(os.fspath(path), os.O_RDONLY))


def _open(path: str, flags: int) -> int:
    """Open a file without waiting for the other end of a pipe. Raises OSError."""
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # Linux cannot open a socket
            raise _refused(path, file_kind_problem(Path(path).stat().st_mode)) from None
        raise
    problem = file_kind_problem(os.fstat(descriptor).st_mode)
    if problem and not os.path.realpath(path).startswith(f"/proc/{os.getpid()}/fd/"):
        os.close(descriptor)
        raise _refused(path, problem)
    os.set_blocking(descriptor, True)
    return descriptor


def _refused(path: str, problem: str) -> OSError:
    return OSError(errno.EINVAL, problem or os.strerror(errno.ENXIO), path)
