"""The expected cost of one object in a stage: measured, scaled from other settings, or assumed."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from dataset.catalog.latest import LatestEvents
from dataset.columns import Columns, TableColumns, sum_by_name
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.blender_scene import OPENING_PARTS
from pipelines.building.stages.identities import Identities
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import FirstEstimate, Stage

__all__ = [
    "Measured",
    "UnitCost",
    "earlier_measurements",
    "measured_now",
    "opens_late",
    "unit_cost",
]

_FIRST_DEVIATION = 0.6
"""Standard deviation of a first estimate, of the logarithm: a factor of 3.3 for two of them. First
builds took up to three times as long on machines with other work.
"""
_SCALED_DEVIATION = 0.15
"""The same for measurements under other settings: two of them are the 30 % of docs/notes/scale.md.
"""
_PRIOR_SPREAD, _PRIOR_OBJECTS = 0.8, 2
"""The spread between objects that is assumed, and the number of measured objects it counts as."""
_MAX_TIMED = 20_000
"""Number of events that are enough for the mean of each part."""


@dataclass(frozen=True, kw_only=True)
class UnitCost:
    """The expected cost of one object in a stage."""

    seconds: float
    """Time of one worker, in seconds."""
    num_bytes: float = 0.0
    """Bytes that the stage adds to the dataset."""
    deviation: float = 0.0
    """Standard deviation of `seconds` as an expectation, divided by it."""
    spread: float = _PRIOR_SPREAD
    """Standard deviation of the seconds of single objects, divided by their mean; 0 for objects
    that are measured themselves."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The measurements of a stage under one configuration."""

    config: BuildConfig
    num: int
    """Number of objects."""
    passed: int
    """Number of those for which the stage succeeded."""
    seconds: float
    """Mean over all objects, in seconds of one worker."""
    spread: float
    """Standard deviation of the seconds, divided by their mean."""
    num_bytes: float = 0.0
    """Mean over all objects."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """The share of each timed part in the seconds; parts may be contained in others."""

    def scaled(self, stage: Stage, config: BuildConfig, again: float) -> UnitCost:
        """Return the cost under another configuration.

        `again` is the share of the objects in question that have a result of the stage: those were
        measured themselves. Each part is multiplied by the ratio of its first estimates under both
        configurations, and so is the rest of the time. The opening of the object is left out in
        stages after the first one that needs it.
        """
        old, new = stage.estimate(self.config), stage.estimate(config)
        same = self.config is config
        opening = sum(self.parts.get(part, 0.0) for part in OPENING_PARTS)
        ratio = 1.0 if same else _ratio(self.parts, old, new)
        spread = (1 - again) * self.spread
        return UnitCost(
            seconds=self.seconds * (ratio - opening if opens_late(stage) else ratio),
            num_bytes=self.num_bytes * (new.num_bytes / old.num_bytes if old.num_bytes else 1.0),
            deviation=math.hypot(spread / self.num**0.5, 0.0 if same else _SCALED_DEVIATION),
            spread=spread,
        )


def opens_late(stage: Stage) -> bool:
    """Return whether a stage finds its object open in Blender, unless it is the object's next."""
    return stage.uses_blender and stage is not next(s for s in STAGES if s.uses_blender)


def _ratio(shares: Mapping[str, float], old: FirstEstimate, new: FirstEstimate) -> float:
    """Return the ratio of the times under two settings, from the measured shares of the parts.

    A part that only the new settings have takes its first estimate.
    """
    if not shares:
        return new.seconds / old.seconds
    ratio, rest = 0.0, 1.0
    for part, seconds in new.parts.items():
        before, share = old.parts.get(part, 0.0), shares.get(part, 0.0)
        ratio += share * seconds / before if before else seconds / old.seconds
        rest -= share if before else 0.0
    rest_old, rest_new = (each.seconds - sum(each.parts.values()) for each in (old, new))
    return ratio + max(0.0, rest) * (rest_new / rest_old if rest_old > 0 else 1.0)


def unit_cost(
    stage: Stage, config: BuildConfig, measured: Sequence[Measured] = (), again: float = 0.0
) -> UnitCost:
    """Return the most certain cost of one object: from measurements, or the first estimate.

    `again` is the share of the objects in question that the stage has processed before.
    """
    first = stage.estimate(config)
    assumed = UnitCost(seconds=first.seconds, num_bytes=first.num_bytes, deviation=_FIRST_DEVIATION)
    costs = [assumed, *(each.scaled(stage, config, again) for each in measured)]
    return min(costs, key=lambda cost: cost.deviation)


def measured_now(
    stage: Stage, columns: Columns, valid: Bool[np.ndarray, "n"], config: BuildConfig
) -> list[Measured]:
    """Return the measurements under the present settings; `valid` are the objects that have one."""
    measured = _measured(stage, columns, valid, config)
    return [] if measured is None else [measured]


def earlier_measurements(
    latest: LatestEvents, config: BuildConfig, known: Sequence[BuildConfig]
) -> dict[str, list[Measured]]:
    """Return the measurements of each stage under other settings, those of the `known` builds.

    Events of other settings are left out: which they were is not recorded. Of a stage whose
    settings have not changed there are none. Measurements of another device do not count.
    """
    now, enabled = Identities(config), STAGES.enabled(config)
    sources = []
    for before in known:
        identities = Identities(before)
        for stage in enabled:
            same_device = before.render.device == config.render.device or not stage.uses_gpu
            if same_device and identities.settings(stage) != now.settings(stage):
                sources.append((stage, before, identities))
    names = {"settings", "status", "seconds", "timings"}
    names |= {stage.stores.column.name for stage, *_ in sources if stage.stores is not None}
    keys = {(stage.name, identities.rig(stage)) for stage, _, identities in sources}
    tables = latest.tables(keys, sorted(names)) if keys else {}
    found: dict[str, list[Measured]] = {}
    for stage, before, identities in sources:
        table = tables[stage.name, identities.rig(stage)]
        measured = _of_table(stage, table, identities.settings(stage), before)
        if measured is not None:
            found.setdefault(stage.name, []).append(measured)
    return found


def _of_table(stage: Stage, table: pa.Table, settings: str, config: BuildConfig) -> Measured | None:
    """Return the measurements with this digest of the settings; None if there are none."""
    if not table.num_rows:
        return None
    table = table.rename_columns([f"{stage.name}.{name}" for name in table.column_names])
    columns = TableColumns(table)
    where = columns.one_of(stage.events.settings, {settings})
    if not where.any():
        return None
    where &= columns.one_of(stage.events.status, {"ok", "failed"})
    measured = _measured(stage, columns, where, config)
    if measured is None:
        return None
    timed = where & columns.present(stage.events.timings)
    timed &= columns.one_of(stage.events.status, {"ok"})
    rows = np.flatnonzero(timed)[:: max(1, int(timed.sum()) // _MAX_TIMED)]
    total = float(columns.numbers(stage.events.seconds)[rows].sum())
    sums = sum_by_name(table[stage.events.timings.key].take(pa.array(rows))) if total else {}
    parts = {part: seconds / total for part, seconds in sums.items()}
    return dataclasses.replace(measured, parts=parts)


def _measured(
    stage: Stage, columns: Columns, where: Bool[np.ndarray, "n"], config: BuildConfig
) -> Measured | None:
    seconds = np.nan_to_num(columns.numbers(stage.events.seconds)[where])
    if not len(seconds):
        return None
    mean, num = float(seconds.mean()), len(seconds)
    own = (float(seconds.std()) / mean) ** 2 if mean else 0.0
    variance = num * own + _PRIOR_OBJECTS * _PRIOR_SPREAD**2
    num_bytes = 0.0
    if stage.stores is not None and stage.stores.is_output:
        num_bytes = float(np.nan_to_num(columns.numbers(stage.stores.column)[where]).mean())
    return Measured(
        config=config,
        num=num,
        passed=int((where & columns.one_of(stage.events.status, {"ok"})).sum()),
        seconds=mean,
        spread=(variance / (num + _PRIOR_OBJECTS)) ** 0.5,
        num_bytes=num_bytes,
    )
