"""Reading local files, of which no other kind than a regular file is accepted."""

import errno
import os
import stat
from typing import IO

__all__ = ["open_local", "read_at"]


def open_local(name: str) -> IO[bytes]:
    """Open a local file for reading. Raises OSError for a pipe or device, without waiting."""
    file = open(name, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(
            errno.EINVAL, "A pipe or device is in the place of this file, move it away", name
        )
    return file


def _without_waiting(path: str, flags: int) -> int:
    """Return a descriptor; without the flag, a pipe waits until its other end is opened."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_at(descriptor: int, start: int, stop: int) -> bytes:
    """Return bytes [start, stop) of an open file; fewer if it is shorter."""
    block = os.pread(descriptor, stop - start, start)
    # One call returns at most 2 GiB, and may return less on network file systems.
    while len(block) < stop - start:
        rest = os.pread(descriptor, stop - start - len(block), start + len(block))
        if not rest:
            break
        block += rest
    return block
