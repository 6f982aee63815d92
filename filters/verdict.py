"""The types of the filters: facts (columns of measurements), filters, their results, verdicts."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np
from jaxtyping import Bool

from dataset.columns import Column, Columns

__all__ = ["PASSED", "Fact", "Filter", "FilterResult", "Verdict"]

T = TypeVar("T")

PASSED = "passed"
"""The reason of a verdict that keeps an object and remarks nothing."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The decision of one filter on one object, with the measured value behind it."""

    filter: str
    keep: bool
    reason: str
    """A stored string by which reports count, such as `low_occupancy`."""
    measured: Any
    """The value that decided, in plain JSON values."""
    limit: Any
    """The threshold that it was compared with."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the verdict that `to_dict` wrote."""
        return cls(**values)


@dataclass(frozen=True)
class Fact(Column[T]):
    """A column with a number, flag or text that a filter reads from a stage's measurements."""

    of: Callable[[Mapping[str, Any]], Any] = field(kw_only=True)
    """Computes the value from what the stage stored (for `list`: the fields of `ObjectRecord`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FilterResult:
    """The result of one filter for n objects."""

    drops: Mapping[str, Bool[np.ndarray, "n"]]
    """Per reason, the objects to drop. If several reasons apply to an object, the first counts."""
    measured: Callable[[int], Any]
    """Returns the value that decided for the object in a row, in plain JSON values."""
    limit: Any
    """The threshold that it was compared with."""
    remarks: Mapping[str, Bool[np.ndarray, "n"]] = field(default_factory=dict)
    """Per reason, objects that are remarked on but not dropped."""

    def verdict(self, name: str, row: int) -> Verdict:
        """Return the verdict on the object in a row, given the filter's name."""
        dropped = next((reason for reason, where in self.drops.items() if where[row]), None)
        remarks = (reason for reason, where in self.remarks.items() if where[row])
        return Verdict(
            filter=name,
            keep=dropped is None,
            reason=dropped or next(remarks, PASSED),
            measured=self.measured(row),
            limit=self.limit,
        )


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A filter: a pure function from stored measurements to a result, and its description."""

    name: str
    """The name in JSON output; never changes."""
    title: str = ""
    """The name in text output, if it differs."""
    reason_titles: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Per stored reason, how text output shows it, if it differs."""
    value_titles: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Per key or word of a measured value or limit, how text output shows it, if it differs."""
    settings: str = ""
    """The field of `FilterConfig` with its settings, if it is not called like the filter."""
    version: int
    """Increased when the same measurements and settings may give another verdict."""
    facts: tuple[Fact[Any], ...]
    """The columns that `evaluate` reads, all of one stage."""
    evaluate: Callable[[Columns, Any], FilterResult]
    """(columns, the filter's settings) -> result. Columns are null for objects not yet measured."""

    def __post_init__(self) -> None:
        if len({fact.stage for fact in self.facts}) != 1:
            raise ValueError(f"filter {self.name}: all facts must belong to one stage")

    @property
    def needs(self) -> str:
        """The stage whose measurements the filter reads."""
        return self.facts[0].stage
