"""The two ways in which work ends badly, as the command line reports them."""

__all__ = ["BadInput", "LrmError", "WorkFailed"]


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
