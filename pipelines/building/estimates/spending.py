"""The measured cost of builds, compared with their estimates."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dataset.catalog.event_log import Catalog
from pipelines.building.build_config import BuildConfig
from pipelines.building.estimates.cost import Cost, StageCost, money
from pipelines.building.stages.registry import STAGES

__all__ = ["compare", "measured_cost", "stamped"]


def measured_cost(catalog: Catalog, since: datetime, config: BuildConfig) -> Cost:
    """Return the cost of all events since a time: their seconds times the reserved resources."""
    stored = [stage.stores for stage in STAGES if stage.stores is not None]
    sizes = [stored_bytes.column for stored_bytes in stored if stored_bytes.is_output]
    effort = {row["stage"]: row for row in catalog.effort(since, sizes).to_pylist()}
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
    hours and bytes; its values are None until the build has ended.
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
            for name in ("core_hours", "gpu_hours", "bytes")
        },
    }


def stamped(cost: Cost) -> dict[str, Any]:
    """Return an estimate as build.json records it, with the present time as its start."""
    return cost.to_dict() | {"since": datetime.now(UTC).isoformat()}


def _error(measured: float, expected: float) -> float | None:
    """Return the relative error, a fraction; None if nothing was expected."""
    return round((measured - expected) / expected, 4) if expected else None
