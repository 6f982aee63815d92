"""Errors that the command line reports: each has an exit code and a message of one line."""

import errno

__all__ = [
    "BadInput",
    "Damaged",
    "FinalFailure",
    "LrmError",
    "Stopped",
    "WorkFailed",
    "cannot_write",
    "first_line",
    "is_disk_full",
    "is_lost",
]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ENVIRONMENT = _FULL | {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT}
"""Errors of the machine, its disks and its network, with any path."""


_LOST = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL})
"""No file, or something else in its place: a folder, a link to itself, a pipe."""


class LrmError(Exception):
    """An error whose message is one clear line for the user."""

    exit_code = 1


class BadInput(LrmError):
    """Unusable options, configuration, source or root: exit code 2.

    Raised before anything is written.
    """

    exit_code = 2


class WorkFailed(LrmError):
    """A failure of work whose input was valid: exit code 1."""


class Damaged(WorkFailed):
    """Stored bytes that differ from what was written; reading them again does not help."""


class FinalFailure(WorkFailed):
    """A failure that would recur: not retryable."""


class Stopped(LrmError):
    """Work that ended cleanly after a stop request; the same command continues it."""

    exit_code = 143


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; the name of its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_disk_full(error: OSError) -> bool:
    """Return whether a write failed for lack of space or quota."""
    return error.errno in _FULL


def is_lost(error: OSError) -> bool:
    """Return whether a read failed because the file does not exist; trying again does not help."""
    return isinstance(error, FileNotFoundError) or error.errno in _LOST


def cannot_write(problem: str, error: OSError) -> LrmError:
    """Return the error to raise, before any work, if an output cannot be written.

    It is BadInput for a wrong path, and WorkFailed if the same path can be written later. The
    message is `problem` with the reason.
    """
    kind = WorkFailed if error.errno in _ENVIRONMENT else BadInput
    return kind(f"{problem}: {error.strerror or error}")
