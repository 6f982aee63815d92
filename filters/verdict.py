"""What a filter is: the facts it keeps of an object's measurements, and its judgement on them."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np
from jaxtyping import Bool

from dataset.columns import Column, Columns

__all__ = ["PASSED", "Fact", "Filter", "Judgement", "Verdict"]

T = TypeVar("T")

PASSED = "passed"
"""The reason of a verdict with nothing to say against an object."""


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


@dataclass(frozen=True)
class Fact(Column[T]):
    """A number, flag or text that a filter needs of a stage's measurements, as a column."""

    of: Callable[[Mapping[str, Any]], Any] = field(kw_only=True)
    """Returns it, given what the stage stored (for `list`: the fields of `ObjectRecord`)."""


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
    version: int
    """Raised whenever the same measurements and settings may give another verdict."""
    facts: tuple[Fact[Any], ...]
    """What it keeps of the measurements of one stage: the columns that `judge` reads."""
    judge: Callable[[Columns, Any], Judgement]
    """(columns, the filter's own settings) -> judgement; pure. Null where nothing was measured."""

    def __post_init__(self) -> None:
        if len({fact.stage for fact in self.facts}) != 1:
            raise ValueError(f"filter {self.name}: its facts must be of one stage")

    @property
    def needs(self) -> str:
        """The stage whose measurements it reads."""
        return self.facts[0].stage
