"""The error of the GLB parser."""

from core.failures import FailureKind, StageFailed

__all__ = ["GlbError", "malformed"]


class GlbError(StageFailed):
    """A GLB file that cannot or must not be rendered: `kind` is why, the message names the item."""


def malformed(message: str) -> GlbError:
    """Return the error for a file that breaks the format or that Blender cannot import."""
    return GlbError(FailureKind.MALFORMED, message)
