"""Groups of objects as messages and JSON name them: their number, and a few of their ids."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

__all__ = ["Group", "group_of"]

_MAX_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some objects."""

    count: int
    examples: tuple[str, ...]
    """The first asset ids."""

    @property
    def named(self) -> str:
        """The ids of the examples in one line, which ends with `…` if there are more."""
        more = [] if self.count <= len(self.examples) else ["…"]
        return ", ".join([*self.examples, *more])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"count": self.count, "examples": list(self.examples)}


def group_of(ids: pa.Array | pa.ChunkedArray) -> Group:
    """Return the group of these asset ids."""
    return Group(count=len(ids), examples=tuple(ids[:_MAX_EXAMPLES].to_pylist()))
