"""The maximum size of a file that is fetched, and the failure of a larger one."""

from dataclasses import dataclass

from core.failures import FailureKind
from glb.limits import GlbLimits
from pipelines.transfers.outcome import FetchFailed

__all__ = ["SizeLimit", "glb_limit"]


@dataclass(frozen=True, kw_only=True)
class SizeLimit:
    """The maximum size of a file, known before its first byte is written."""

    name: str
    """The file as messages name it."""
    max_bytes: int
    option: str = ""
    """The option that sets the limit, if one does."""

    def check(self, num_bytes: int | None) -> None:
        """Raise FetchFailed (too_large) if a size is known and above the limit."""
        if num_bytes is not None and num_bytes > self.max_bytes:
            raise self.exceeded(f"{num_bytes} bytes")

    def exceeded(self, found: str = "more bytes") -> FetchFailed:
        """Return the failure of a file with this size, or with more bytes than allowed."""
        limit = f"the limit is {self.max_bytes}{f' ({self.option})' if self.option else ''}"
        return FetchFailed(FailureKind.TOO_LARGE, f"{self.name}: {found}; {limit}")


def glb_limit(name: str, max_bytes: int = GlbLimits.max_file_bytes) -> SizeLimit:
    """Return the limit of an object's file."""
    return SizeLimit(name=name, max_bytes=max_bytes, option="--inspect.max-file-bytes")
