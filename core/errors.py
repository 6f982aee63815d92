"""The two ways in which work ends badly, as the command line reports them."""

__all__ = [
    "BadInput",
    "Damaged",
    "FinalFailure",
    "LrmError",
    "Stopped",
    "WorkFailed",
    "first_line",
]


class LrmError(Exception):
    """An error with one clear line for the person at the terminal."""

    exit_code = 1


class BadInput(LrmError):
    """What the user gave cannot be used (options, configuration, source, root): exit code 2.

    Raised before anything is written.
    """

    exit_code = 2


class WorkFailed(LrmError):
    """The input was fine and the work failed: exit code 1."""


class Damaged(WorkFailed):
    """What lies there is not what was written, whoever reads it and whenever."""


class FinalFailure(WorkFailed):
    """Work that would fail again in the same way: nobody should try it again by himself."""


class Stopped(LrmError):
    """Somebody asked the work to end, and it left in good order; the same command goes on."""

    exit_code = 143


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; the name of its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
