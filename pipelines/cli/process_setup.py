"""What the command line needs of its process: streams, the width of the terminal, last errors."""

import contextlib
import io
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from core.errors import LrmError, Stopped, first_line
from core.safe_text import printable
from core.storage import object_store_errors

__all__ = ["Failure", "describe_failure", "flush_output", "prepare_process"]

_MIN_COLUMNS, _USUAL_COLUMNS = 40, 80
"""A narrower width in characters would hide the content of tables, so it is replaced by 80."""
_WIDTH = re.compile("[0-9]{1,4}")
_RUST_PANIC = "PanicException"
"""Name of the error, a BaseException, that libraries written in Rust raise for their own bugs."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The last line of a command that failed, and its exit code."""

    line: str
    exit_code: int


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


def describe_failure(error: BaseException) -> Failure | None:
    """Return what to print for an error; None for a bug of this software, which has a traceback."""
    if isinstance(error, Stopped):
        return Failure(line=_one_line(str(error)), exit_code=error.exit_code)
    if isinstance(error, LrmError):
        return Failure(line=f"error: {_one_line(str(error))}", exit_code=error.exit_code)
    if isinstance(error, object_store_errors()):
        problem = f"the object store cannot be used: {_one_line(first_line(error))}"
    elif isinstance(error, OSError):
        problem = _one_line(str(error))
    elif type(error).__name__ == _RUST_PANIC:
        problem = f"a library failed: {_one_line(first_line(error))}"
    else:
        return None
    return Failure(line=f"error: {problem}", exit_code=1)


def flush_output() -> None:
    """Write what is buffered for standard output; if that fails (a full disk), discard it.

    Otherwise the interpreter would try again when it ends, and print a traceback.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(text: str) -> str:
    return printable(text).replace("\n", r"\n")
