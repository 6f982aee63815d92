"""What the command line needs of its process: streams, descriptors, the width of the terminal."""

import contextlib
import errno
import io
import os
import re
import resource
import sys
from pathlib import Path

from core.errors import WorkFailed

__all__ = [
    "DescriptorReserve",
    "check_descriptors",
    "flush_output",
    "prepare_process",
]

_MIN_COLUMNS, _USUAL_COLUMNS = 40, 80
"""A narrower width in characters would hide the content of tables, so it is replaced by 80."""
_WIDTH = re.compile("[0-9]{1,4}")
_MIN_DESCRIPTORS, _USUAL_DESCRIPTORS = 32, 1024
_RESERVED = 6
"""Descriptors that are kept for the end of a command: describing an error may open files."""


class DescriptorReserve:
    """Descriptors that are kept until a command ends, perhaps for lack of descriptors."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        with contextlib.suppress(OSError):
            while len(self._kept) < _RESERVED:
                self._kept.append(os.open(os.devnull, os.O_RDONLY))

    def release(self) -> None:
        """Close the descriptors, so that others can be opened."""
        while self._kept:
            os.close(self._kept.pop())


def prepare_process() -> None:
    """Make the environment one in which every command can print.

    Relative folders in TMPDIR become absolute, because workers have other working directories.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # A file that is opened later would get the number, and the output of libraries.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # An interpreter without these streams has None, which prints nothing but has no `flush`.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names and captions may contain characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    columns = os.environ.get("COLUMNS")
    if columns and not _WIDTH.fullmatch(columns):
        del os.environ["COLUMNS"]
    elif columns and int(columns) < _MIN_COLUMNS:
        os.environ["COLUMNS"] = str(_USUAL_COLUMNS)
    temporary = os.environ.get("TMPDIR")
    if temporary:
        with contextlib.suppress(FileNotFoundError):  # the current folder was removed
            os.environ["TMPDIR"] = str(Path(temporary).absolute())


def check_descriptors() -> None:
    """Allow enough open files for libraries. Raises WorkFailed if the system's limit is too low.

    Below it, libraries in Rust panic or hang instead of raising an error.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _USUAL_DESCRIPTORS:
        return
    allowed = (
        _USUAL_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _USUAL_DESCRIPTORS)
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < _MIN_DESCRIPTORS:
        raise WorkFailed(
            f"{os.strerror(errno.EMFILE)}: this machine allows {allowed}, and at least "
            f"{_MIN_DESCRIPTORS} are needed"
        )


def flush_output() -> None:
    """Write what is buffered for standard output; if that fails (a full disk), discard it.

    Otherwise the interpreter would try again when it ends, and print a traceback.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
