"""What the command line needs of its process: streams, the width of the terminal."""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

__all__ = ["flush_output", "prepare_process"]

_MIN_COLUMNS, _USUAL_COLUMNS = 40, 80
"""A narrower width in characters would hide the content of tables, so it is replaced by 80."""
_WIDTH = re.compile("[0-9]{1,4}")


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


def flush_output() -> None:
    """Write what is buffered for standard output; if that fails (a full disk), discard it.

    Otherwise the interpreter would try again when it ends, and print a traceback.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
