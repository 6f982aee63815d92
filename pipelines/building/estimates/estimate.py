"""The expected cost of a build, from the catalog's measurements or from first estimates."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

from dataset.columns import Columns
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import Decisions
from pipelines.building.estimates.cost import Cost, StageCost, expected_objects
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import FirstEstimate, Stage

__all__ = ["estimate_rest", "first_estimate"]

_ENOUGH_OBJECTS = 30
"""Minimum number of objects from which the share that reaches a stage is measured."""


def first_estimate(config: BuildConfig, num_objects: int) -> Cost:
    """Return the expected cost of a first build of this many objects."""
    stages = STAGES.enabled(config)
    estimates = {stage.name: stage.estimate(config) for stage in stages}
    return _cost(config, stages, {stages[0].name: num_objects}, estimates)


def estimate_rest(
    rows: Int64[np.ndarray, "m"], decisions: Decisions, columns: Columns, config: BuildConfig
) -> Cost:
    """Return the expected cost of the remaining work on the objects in these rows.

    The next stage of each object is known; the number that reaches later stages is estimated from
    the shares that pass. Seconds, bytes and shares are measured where the catalog has enough
    objects, else they are the first estimates of the stages.
    """
    stages = decisions.stages
    next_stages = np.bincount(decisions.stage[rows], minlength=len(stages)).tolist()
    starting = {stage.name: num for stage, num in zip(stages, next_stages, strict=True)}
    passed = {stage.name: columns.one_of(stage.events.status, {"ok"}) for stage in stages}
    shares = _measured_shares(decisions, passed)
    estimates = {}
    for stage in stages:
        first, where = stage.estimate(config), passed[stage.name]
        seconds = _mean(columns.numbers(stage.events.seconds), where, first.seconds)
        num_bytes = first.num_bytes
        if stage.stores is not None and stage.stores.is_output:
            num_bytes = _mean(columns.numbers(stage.stores.column), where, num_bytes)
        share = shares.get(stage.name, first.share)
        estimates[stage.name] = FirstEstimate(seconds=seconds, num_bytes=num_bytes, share=share)
    return _cost(config, stages, starting, estimates)


def _mean(values: np.ndarray, where: np.ndarray, default: float) -> float:
    return float(values[where].mean()) if where.any() else default


def _measured_shares(decisions: Decisions, passed: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return per stage the share of the objects that passed the previous stage and this one."""
    shares = {}
    for index, (before, stage) in enumerate(pairwise(decisions.stages), start=1):
        # Objects that still wait for the stage do not count.
        counted = passed[before.name] & (decisions.stage != index)
        if counted.sum() >= _ENOUGH_OBJECTS:
            shares[stage.name] = float((counted & passed[stage.name]).sum() / counted.sum())
    return shares


def _cost(
    config: BuildConfig,
    stages: Sequence[Stage],
    starting: Mapping[str, float],
    estimates: Mapping[str, FirstEstimate],
) -> Cost:
    """Return the expected cost of objects, given how many start at each stage."""
    shares = {name: estimate.share for name, estimate in estimates.items()}
    expected = expected_objects(starting, tuple(shares), shares)
    costs = {}
    for stage in stages:
        count, estimate = expected[stage.name], estimates[stage.name]
        if count:
            hours = {
                kind: count * estimate.seconds / 3600 * number
                for kind, number in stage.reserves(config).items()
            }
            costs[stage.name] = StageCost(objects=count, bytes=count * estimate.num_bytes, **hours)
    return Cost(stages=costs)
