"""What a filter says of an object, and the facts that it may look at."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from dataset.objects import ObjectRecord

__all__ = ["PASSED", "Facts", "Filter", "Judge", "Stage", "Verdict"]

PASSED = "passed"
"""The reason of a verdict with nothing to say against an object."""

Stage = Literal["list", "inspect", "measure", "render"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of one object so far; None where a stage has not run."""

    record: ObjectRecord
    inspect: Mapping[str, Any] | None = None
    """`Inspection.to_dict()`."""
    measure: Mapping[str, Any] | None = None
    """`coverage`: the fraction of the frame that the object fills in each view of the rig;
    `islands`: what `measure_islands` returned."""
    render: Mapping[str, Any] | None = None
    """Measurements of the finished views."""

    def has(self, stage: Stage) -> bool:
        """Whether the measurements of a stage are there."""
        return stage == "list" or getattr(self, stage) is not None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The decision of one filter, with the number that it rests on."""

    filter: str
    keep: bool
    reason: str
    """A stable slug that reports count, such as `low_occupancy`."""
    measured: Any
    """The value that was judged, in plain JSON values."""
    limit: Any
    """What it was judged against."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The verdict that `to_dict` wrote."""
        return cls(**values)


Judge = Callable[[Facts, Any], Verdict]
"""(facts, the filter's own configuration) -> verdict; pure."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """One link of the chain."""

    name: str
    """Also its field in `FilterConfig`."""
    needs: Stage
    """The stage whose measurements it reads."""
    version: int
    """Raised whenever the same facts and configuration may give another verdict."""
    judge: Judge
