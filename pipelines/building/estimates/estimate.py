"""The expected cost of a build, from the catalog's measurements or from first estimates."""

import math
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from jaxtyping import Int64

from dataset.columns import Columns
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import Decisions
from pipelines.building.estimates.cost import Cost, StageCost
from pipelines.building.estimates.expected_objects import (
    Expected,
    Routes,
    Share,
    expected_objects,
    measured_shares,
    routes,
)
from pipelines.building.estimates.unit_costs import (
    Measured,
    UnitCost,
    measured_now,
    opens_late,
    unit_cost,
)
from pipelines.building.stages.blender_scene import OPENING_SECONDS
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import Stage

__all__ = ["Earlier", "estimate_rest", "first_estimate", "remaining_work"]

Earlier = Mapping[str, Sequence[Measured]]
"""The measurements of each stage under earlier settings."""


def first_estimate(config: BuildConfig, num_objects: int) -> Cost:
    """Return the expected cost of a first build of this many objects."""
    stages = STAGES.enabled(config)
    new = Routes(
        start=np.zeros(1, dtype=np.int8),
        to_do=np.ones((len(stages), 1), dtype=bool),
        has_result=np.zeros((len(stages), 1), dtype=bool),
        passes=np.full((len(stages), 1), np.nan),
    )
    shares = [Share(first=stage.estimate(config).share) for stage in stages]
    expected = expected_objects(stages, new, shares, num_objects)
    return _cost(config, stages, expected, {s.name: unit_cost(s, config) for s in stages})


def estimate_rest(
    rows: Int64[np.ndarray, "m"],
    decisions: Decisions,
    columns: Columns,
    config: BuildConfig,
    earlier: Earlier | None = None,
) -> Cost:
    """Return the expected cost of the remaining work on the objects in these rows.

    Each row needs a stage. The number of objects that reach later stages follows from the last
    results and the present filters, and for objects without results from the shares that pass.
    Seconds and bytes are measured, under the present settings or scaled from `earlier`, else they
    are the first estimates of the stages.
    """
    expected, units = _expectations(rows, decisions, columns, config, earlier or {})
    return _cost(config, decisions.stages, expected, units)


def remaining_work(decisions: Decisions, columns: Columns, config: BuildConfig) -> float:
    """Return the expected work on all pending objects, in seconds of one worker."""
    rows = np.flatnonzero(decisions.where("pending"))
    expected, units = _expectations(rows, decisions, columns, config, {})
    return sum(_seconds(stage, expected[stage.name], units) for stage in decisions.stages)


def _expectations(
    rows: Int64[np.ndarray, "m"],
    decisions: Decisions,
    columns: Columns,
    config: BuildConfig,
    earlier: Earlier,
) -> tuple[dict[str, Expected], dict[str, UnitCost]]:
    """Return the number of objects that each stage is expected to process, and the cost of one."""
    stages = decisions.stages
    shares = measured_shares(decisions, columns, [s.estimate(config).share for s in stages])
    shares = [_share(index, share, stages, earlier) for index, share in enumerate(shares)]
    expected = expected_objects(stages, routes(rows, decisions, columns), shares)
    units = {}
    for stage in stages:
        valid = decisions.valid[stage.name]
        now = measured_now(stage, columns, valid, config)
        measured = [*now, *earlier.get(stage.name, ())]
        units[stage.name] = unit_cost(stage, config, measured, expected[stage.name].again)
    return expected, units


def _share(index: int, share: Share, stages: Sequence[Stage], earlier: Earlier) -> Share:
    """Return a measured share, or that under earlier settings, such as another rig."""
    if not index or share.passed:
        return share
    before, here = (earlier.get(stages[i].name, ()) for i in (index - 1, index))
    for one, other in product(before, here):
        if one.config is other.config:
            reached = min(other.num, one.passed)
            return Share(first=share.first, passed=one.passed, reached=reached)
    return share


def _cost(
    config: BuildConfig,
    stages: Sequence[Stage],
    expected: Mapping[str, Expected],
    units: Mapping[str, UnitCost],
) -> Cost:
    """Return the cost of the expected objects, each range two standard deviations wide."""
    costs = {}
    for stage in stages:
        count, unit = expected[stage.name], units[stage.name]
        if count.objects:
            hours = {
                kind: _seconds(stage, count, units) / 3600 * number
                for kind, number in stage.reserves(config).items()
            }
            chance = unit.spread / max(count.objects, 1.0) ** 0.5
            deviation = math.hypot(count.deviation, unit.deviation, chance)
            costs[stage.name] = StageCost(
                objects=count.objects,
                bytes=count.objects * unit.num_bytes,
                range_factor=math.exp(2 * deviation),
                **hours,
            )
    return Cost(stages=costs)


def _seconds(stage: Stage, count: Expected, units: Mapping[str, UnitCost]) -> float:
    """Return the seconds of one worker for all objects of a stage.

    The first stage of a task opens the object in Blender. That is part of the first such stage of
    a build; a later one opens only the objects that start there.
    """
    seconds = count.objects * units[stage.name].seconds
    return seconds + count.starting * OPENING_SECONDS if opens_late(stage) else seconds
