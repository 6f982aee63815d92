"""The measured cost of builds, compared with their estimates."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dataset.catalog.event_log import Catalog
from pipelines.building.build_config import BuildConfig
from pipelines.building.estimates.cost import RANGED, Cost, StageCost, money
from pipelines.building.stages.registry import STAGES

__all__ = ["compare", "estimate_record", "measured_cost"]


def measured_cost(catalog: Catalog, since: datetime, config: BuildConfig) -> Cost:
    """Return the cost of all events since a time: their seconds times the reserved resources."""
    stored = [stage.stores for stage in STAGES if stage.stores is not None]
    sizes = [stored_bytes.column for stored_bytes in stored if stored_bytes.is_output]
    effort = {row["stage"]: row for row in catalog.stage_totals(since, sizes).to_pylist()}
    stages = {}
    for stage in STAGES:
        if stage.name in effort:
            row = effort[stage.name]
            hours = row["seconds"] / 3600
            reserved = {kind: hours * number for kind, number in stage.reserves(config).items()}
            stages[stage.name] = StageCost(objects=row["objects"], bytes=row["bytes"], **reserved)
    return Cost(stages=stages)


def compare(
    build: Mapping[str, Any], catalog: Catalog, config: BuildConfig
) -> dict[str, Any] | None:
    """Return the estimate and the measured cost of the last build; None if it has no estimate.

    `build` is the content of build.json. `error` in the result is (took - expected) / expected of
    hours and bytes, `within_range` whether they are in the range of the estimate; their values are
    None until the build has ended.
    """
    if "estimate" not in build:
        return None
    since = datetime.fromisoformat(build["estimate"]["since"])
    expected = Cost.from_dict(build["estimate"])
    measured = measured_cost(catalog, since, config)
    ended = bool(build.get("ended"))
    return {
        "since": since.isoformat(),
        "ended": ended,
        "expected": expected.to_dict() | {"money": money(expected, config.prices)},
        "took": measured.to_dict() | {"money": money(measured, config.prices)},
        "error": {
            name: _error(measured.to_dict()[name], expected.to_dict()[name]) if ended else None
            for name in RANGED
        },
        "within_range": {
            name: _is_within(getattr(measured, name), expected.range_of(name)) if ended else None
            for name in RANGED
        },
    }


def estimate_record(cost: Cost) -> dict[str, Any]:
    """Return an estimate as build.json records it, with the present time as its start."""
    return cost.to_dict() | {"since": datetime.now(UTC).isoformat()}


def _is_within(measured: float, ends: tuple[float, float]) -> bool | None:
    """Return whether a cost is in a range; None if there is no range."""
    low, high = ends
    return low <= measured <= high if low < high else None


def _error(measured: float, expected: float) -> float | None:
    """Return the relative error, a fraction; None if nothing was expected."""
    return round((measured - expected) / expected, 4) if expected else None
