"""How the child says that an object cannot be rendered."""

from render.job import FailureKind

__all__ = ["SceneFailure"]


class SceneFailure(Exception):
    """The object cannot be rendered; `kind` says why."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
