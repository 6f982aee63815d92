"""The expected number of objects that reach each stage, and how uncertain it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64

from dataset.columns import Columns
from pipelines.building.decide import Decisions
from pipelines.building.stages.stage import Stage

__all__ = ["Expected", "Routes", "Share", "expected_objects", "measured_shares", "routes"]

_PRIOR_OBJECTS = 10.0
"""The weight of a stage's first estimate of its share, as a number of measured objects."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """The share of the objects that passed the previous stage and reach this one."""

    first: float
    """The first estimate of the stage."""
    passed: float = 0.0
    """Number of measured objects that passed the previous stage."""
    reached: float = 0.0
    """Number of those that reached this one."""

    @property
    def value(self) -> float:
        """The measured share; the first estimate counts as a few more objects."""
        weight = _PRIOR_OBJECTS
        return (self.reached + weight * self.first) / (self.passed + weight)

    def relative_variance(self, num_objects: float) -> float:
        """Return the variance of the number that reaches the stage, divided by its square.

        `num_objects` passed the previous stage. The two terms are the error of the share and the
        chance of each object.
        """
        samples = 1 / (self.passed + _PRIOR_OBJECTS) + 1 / max(num_objects, 1.0)
        return (1 - self.value) / max(self.value, 1e-6) * samples


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The expected number of objects that a stage processes."""

    objects: float
    starting: float
    """Number of those for which the stage is the next one."""
    again: float = 0.0
    """Share of `objects` that the stage has processed before."""
    deviation: float = 0.0
    """Standard deviation, divided by `objects`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Routes:
    """The way of m objects through s stages."""

    start: Int8[np.ndarray, "m"]
    """Index of each object's next stage."""
    to_do: Bool[np.ndarray, "s m"]
    """Whether a stage processes the object if it arrives there; a valid result is not redone."""
    has_result: Bool[np.ndarray, "s m"]
    """Whether the stage has processed the object before."""
    passes: Float64[np.ndarray, "s m"]
    """1 or 0: whether the object goes on after a stage; NaN if that is not known."""


def routes(rows: Int64[np.ndarray, "m"], decisions: Decisions, columns: Columns) -> Routes:
    """Return the ways of the objects in these rows, of which each needs a stage.

    After a fetch everything is done again. Whether an object passes a stage that is done again
    follows from its last result and the present filters: most results hardly change.
    """
    start = decisions.stage[rows]
    to_do, has_result = np.empty((2, len(decisions.stages), len(rows)), dtype=bool)
    passes = np.empty(to_do.shape)
    for index, stage in enumerate(decisions.stages):
        ok = columns.one_of(stage.events.status, {"ok"})[rows]
        has_result[index] = columns.one_of(stage.events.status, {"ok", "failed"})[rows]
        to_do[index] = ~decisions.valid[stage.name][rows] | (start == index) | (start == 0)
        passes[index] = np.where(ok | ~to_do[index], ok, np.nan)
        for filter_, filter_result in decisions.filter_results:
            if filter_.needs == stage.name:
                for dropped in filter_result.drops.values():
                    passes[index][ok & dropped[rows]] = 0.0
    return Routes(start=start, to_do=to_do, has_result=has_result, passes=passes)


def measured_shares(decisions: Decisions, columns: Columns, first: Sequence[float]) -> list[Share]:
    """Return the share of every stage, from all objects that have results.

    An object that waits for a stage has reached it; one that waits for an earlier stage does not
    count.
    """
    shares, passed = [Share(first=first[0])], np.zeros(len(columns), dtype=bool)
    for index, stage in enumerate(decisions.stages):
        if index:
            passed &= (decisions.stage < 0) | (decisions.stage >= index)
            reached = passed & (decisions.stage == index)
            reached |= passed & columns.one_of(stage.events.status, {"ok", "failed"})
            shares.append(
                Share(
                    first=first[index],
                    passed=float(passed.sum()),
                    reached=float(reached.sum()),
                )
            )
        passed = columns.one_of(stage.events.status, {"ok"})
    return shares


def expected_objects(
    stages: Sequence[Stage], ways: Routes, shares: Sequence[Share], weight: float = 1.0
) -> dict[str, Expected]:
    """Return the expected number of objects per stage.

    An object reaches its next stage with p = 1, and each later one with p_s = p_(s-1) * pass_(s-1),
    where pass is known from an earlier result, or is the share of the stage. `weight` is the number
    of objects that each of the m stands for.
    """
    reaches, is_guess = np.zeros(len(ways.start)), np.zeros(len(ways.start), dtype=bool)
    variance, expected = 0.0, {}
    for index, stage in enumerate(stages):
        if index:
            known = ways.passes[index - 1]
            guessed = np.isnan(known) & (reaches > 0)
            before = weight * float(reaches[guessed].sum())
            if before:
                variance += shares[index].relative_variance(before)
            reaches = reaches * np.where(guessed, shares[index].value, np.nan_to_num(known))
            is_guess |= guessed
        reaches[ways.start == index] = 1.0
        processed = reaches * ways.to_do[index]
        total = float(processed.sum())
        guess, again = (
            float(processed[which].sum()) / total if total else 0.0
            for which in (is_guess, ways.has_result[index])
        )
        expected[stage.name] = Expected(
            objects=weight * total,
            starting=weight * float((ways.start == index).sum()),
            again=again,
            deviation=guess * variance**0.5,
        )
    return expected
