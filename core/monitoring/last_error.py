"""The last line of a command that failed, for every error that may end one."""

import errno
import os
import re
import shlex
import sys
import tempfile
import traceback
from dataclasses import dataclass

from core.errors import LrmError, Stopped, first_line
from core.safe_text import printable
from core.storage import object_store_errors

__all__ = ["Failure", "describe_failure"]

_RUST_PANIC = "PanicException"
"""Name of the error, a BaseException, that libraries written in Rust raise for their own bugs."""
_NO_THREAD = "can't start new thread"
"""Message of the RuntimeError that Python raises at the limit of processes."""
_OTHER_ADVICE = "rm -rf|restore|delete"
_REMEDIES = {
    errno.ENOSPC: ("free", "free space on this disk, and run the same command again"),
    errno.EDQUOT: ("quota of", "delete files below the quota of your user, and run it again"),
    errno.EMFILE: ("ulimit", "allow more open files: `ulimit -n 1024`"),
    errno.ENFILE: ("programs", "end other programs: the machine has too many open files"),
    errno.ENOMEM: ("memory:", "end other programs, or use a machine with more memory"),
    errno.EIO: ("check the", "check the disk or the network share, and run the same command again"),
    errno.EISDIR: (
        "rm -rf|restore|delete",
        "move this folder away, and run the same command again",
    ),
    errno.ELOOP: (_OTHER_ADVICE, "remove this link, and run the same command again"),
    errno.EROFS: ("mount", "mount this disk for writing"),
}
"""What to do about errors of the system, by number: a pattern of other advice, and the advice. It
is added to every line with the system's text for the error, unless the pattern matches there."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The last line of a command that failed, and its exit code."""

    line: str
    exit_code: int


def describe_failure(error: BaseException) -> Failure | None:
    """Return what to print for an error; None for the end that a library asks for (SystemExit).

    An error of the machine or of a library is described. Any other one is a bug of this software:
    its line says so and names a file with the traceback.
    """
    if isinstance(error, Stopped):
        return Failure(line=_one_line(str(error)), exit_code=error.exit_code)
    if isinstance(error, LrmError):
        line = _with_remedy(_one_line(str(error)))
        return Failure(line=f"error: {line}", exit_code=error.exit_code)
    problem = _problem_of_machine(error)
    if problem is None and type(error).__name__ == _RUST_PANIC:
        problem = f"a library failed: {_one_line(first_line(error))}"
    if problem is None:
        if not isinstance(error, Exception):
            return None
        problem = _internal_error(error)
    return Failure(line=f"error: {_with_remedy(problem)}", exit_code=1)


def _problem_of_machine(error: BaseException) -> str | None:
    """Return the line of an error that the machine or the object store causes; None for others."""
    if isinstance(error, object_store_errors()):
        return f"the object store cannot be used: {_one_line(first_line(error))}"
    if isinstance(error, OSError):
        # Delta Lake formats causes as a coloured tree.
        lines = re.sub(r"\x1b\[\d+m", "", str(error)).splitlines()
        causes = ": ".join(line.strip(" \u21b3") for line in lines if line.strip())
        # An error of the system is one line, in which a file's name may have a line break.
        return _one_line(str(error) if error.errno else causes or type(error).__name__)
    if isinstance(error, MemoryError):
        advice = _REMEDIES[errno.ENOMEM][1]
        return f"not enough memory: {_one_line(first_line(error))}; {advice}"
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return f"{_NO_THREAD}; allow more processes: `ulimit -u 4096`"
    return None


def _with_remedy(line: str) -> str:
    """Return an error's line with the remedy for the error of the system that it reports."""
    for number, (other, advice) in _REMEDIES.items():
        if os.strerror(number) in line and not re.search(other, line):
            return f"{line}; {advice}"
    return line


def _internal_error(error: Exception) -> str:
    """Return the line of a bug, and write its traceback to a file that the line names."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({frame.filename}:{frame.lineno})" for frame in place)
    what = f"internal error: {type(error).__name__}: {_one_line(first_line(error))}{where}"
    try:
        descriptor, name = tempfile.mkstemp(prefix="lrm-error-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{shlex.join(sys.argv)}\n\n")
            file.writelines(traceback.format_exception(error))
    except OSError as problem:
        return f"{what}; this is a bug: report it (its traceback cannot be stored: {problem})"
    return f"{what}; this is a bug: report it with the file {name}"


def _one_line(text: str) -> str:
    return printable(text).replace("\n", r"\n")
