"""What Blender alone can find wrong with an object."""

from core.failures import StageFailed

__all__ = ["SceneFailure"]


class SceneFailure(StageFailed):
    """The object cannot be rendered; `kind` says why."""
