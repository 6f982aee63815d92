"""The one error of the parser."""

from core.failures import StageFailed

__all__ = ["GlbError"]


class GlbError(StageFailed):
    """A GLB file cannot or may not be rendered; `kind` says why, the message names the part."""
