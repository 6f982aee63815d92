"""The one error of the parser."""

from core.failures import FailureKind, StageFailed

__all__ = ["GlbError", "malformed"]


class GlbError(StageFailed):
    """A GLB file cannot or may not be rendered; `kind` says why, the message names the part."""


def malformed(message: str) -> GlbError:
    """Return the error for a file that breaks the format or that Blender cannot import."""
    return GlbError(FailureKind.MALFORMED, message)
