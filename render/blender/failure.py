"""The error for objects that fail inside Blender."""

from core.failures import StageFailed

__all__ = ["SceneFailure"]


class SceneFailure(StageFailed):
    """The object cannot be rendered, for the reason in `kind` and `message`."""
