"""What a filter is: the facts it keeps of an object's measurements, and its judgement on them."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from dataset.columns import Columns

__all__ = ["PASSED", "Fact", "Filter", "Judgement", "Stage", "Verdict"]

PASSED = "passed"
"""The reason of a verdict with nothing to say against an object."""

Stage = Literal["list", "inspect", "measure", "render"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The decision of one filter on one object, with the number that it rests on."""

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


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A number, flag or text that a filter needs of a stage's measurements, as a column."""

    name: str
    type: pa.DataType
    of: Callable[[Mapping[str, Any]], Any]
    """From what the stage stored (for `list`: the fields of `ObjectRecord`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """What a filter says of n objects."""

    drops: Mapping[str, Bool[np.ndarray, "n"]]
    """Per reason, the objects to drop. Of several reasons for one object the first counts."""
    measured: Callable[[int], Any]
    """The value that was judged, of the object in a row, in plain JSON values."""
    limit: Any
    """What it was judged against."""
    remarks: Mapping[str, Bool[np.ndarray, "n"]] = field(default_factory=dict)
    """Reasons that are worth knowing but drop nothing."""

    def verdict(self, name: str, row: int) -> Verdict:
        """Of the object in a row, by the filter of that name."""
        dropped = next((reason for reason, where in self.drops.items() if where[row]), None)
        noted = (reason for reason, where in self.remarks.items() if where[row])
        return Verdict(
            filter=name,
            keep=dropped is None,
            reason=dropped or next(noted, PASSED),
            measured=self.measured(row),
            limit=self.limit,
        )


@dataclass(frozen=True, kw_only=True)
class Filter:
    """One link of the chain."""

    name: str
    settings: str = ""
    """Its field in `FilterConfig`, if it has another name than the filter."""
    needs: Stage
    """The stage whose measurements it reads."""
    version: int
    """Raised whenever the same measurements and settings may give another verdict."""
    facts: Collection[Fact]
    """What it keeps of them. `judge` reads the columns `<needs>.<name of the fact>`."""
    judge: Callable[[Columns, Any], Judgement]
    """(columns, the filter's own settings) -> judgement; pure. Null where nothing was measured."""
