"""What Blender alone can find wrong with an object."""

from core.failures import FailureKind

__all__ = ["SceneFailure"]


class SceneFailure(Exception):
    """The object cannot be rendered; `kind` says why."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
