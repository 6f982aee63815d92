"""The folder of temporary files (TMPDIR), and a short one for sockets, whose names are limited."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from core.errors import BadInput, cannot_write
from core.paths.scratch import ScratchFolder

__all__ = [
    "MAX_SOCKET_NAME",
    "check_temporary_folder",
    "private_short_folder",
    "short_folder",
    "write_problem",
]

MAX_SOCKET_NAME = 107
"""Bytes of the longest name of a socket (unix(7))."""
_SHORT_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - see below
"""Folders for private folders with short names, best first."""
_PROBE = bytes(1 << 20)


def check_temporary_folder() -> None:
    """Raise BadInput if TMPDIR is set to a folder that cannot be written, WorkFailed if it is full.

    Python would use another folder without a message, often one on a smaller disk.
    """
    folder = os.environ.get("TMPDIR")
    if folder and (error := _write_error(Path(folder))):
        raise cannot_write(
            f"TMPDIR={folder}: cannot write temporary files here (set TMPDIR to a folder that can "
            "be written, or unset it)",
            error,
        )


def write_problem(folder: Path) -> str:
    """Return why a file of one megabyte cannot be written; an empty text if it can."""
    error = _write_error(folder)
    return "" if error is None else error.strerror or str(error)


def _write_error(folder: Path) -> OSError | None:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(_PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


def short_folder() -> Path | None:
    """Return a folder with a short name that can be written; None if there is none."""
    usable = (folder for folder in _SHORT_FOLDERS if not write_problem(folder))
    return next(usable, None)


@contextlib.contextmanager
def private_short_folder(long_folder: Path) -> Iterator[str]:
    """Yield a new folder that only this user can enter, for sockets; it is removed at the end.

    Raises BadInput, with the name of the folder that is too long, if none can be written.
    """
    folder = short_folder()
    if folder is None:
        raise BadInput(
            f"{long_folder}: the name of this folder is too long for sockets, and none of "
            f"{', '.join(map(str, _SHORT_FOLDERS))} can be written; set TMPDIR to a folder with a "
            "shorter name"
        )
    with ScratchFolder("ray", folder) as private:
        yield private
