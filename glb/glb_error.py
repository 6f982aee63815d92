"""The one error of the parser."""

from core.failures import FailureKind

__all__ = ["GlbError"]


class GlbError(Exception):
    """A GLB file cannot or may not be rendered; `kind` says why, `message` names the part."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"
