"""What builds took, beside what was expected of them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dataset.catalog.event_log import Catalog
from pipelines.building.build_config import BuildConfig
from pipelines.building.estimates.cost import Cost, StageCost, money
from pipelines.building.stages.registry import STAGES

__all__ = ["compare", "spent", "stamped"]


def spent(catalog: Catalog, since: datetime, config: BuildConfig) -> Cost:
    """Return what the events since a moment took, by what a task of each stage reserves."""
    stored = [stage.stores for stage in STAGES if stage.stores is not None]
    sizes = [found.column for found in stored if found.is_output]
    effort = {row["stage"]: row for row in catalog.effort(since, sizes).to_pylist()}
    stages = {}
    for stage in STAGES:
        if stage.name in effort:
            row = effort[stage.name]
            hours = row["seconds"] / 3600
            held = {kind: hours * number for kind, number in stage.reserves(config).items()}
            stages[stage.name] = StageCost(objects=row["objects"], bytes=row["bytes"], **held)
    return Cost(stages=stages)


def compare(
    build: Mapping[str, Any], catalog: Catalog, config: BuildConfig
) -> dict[str, Any] | None:
    """Return what the last build expected beside what it took; None if it recorded no estimate.

    `error` is (took - expected) / expected of hours and bytes, once the build has ended.
    """
    if "estimate" not in build:
        return None
    since = datetime.fromisoformat(build["estimate"]["since"])
    expected = Cost.from_dict(build["estimate"])
    took = spent(catalog, since, config)
    ended = bool(build.get("ended"))
    return {
        "since": since.isoformat(),
        "ended": ended,
        "expected": expected.to_dict() | {"money": money(expected, config.prices)},
        "took": took.to_dict() | {"money": money(took, config.prices)},
        "error": {
            name: _error(took.to_dict()[name], expected.to_dict()[name]) if ended else None
            for name in ("core_hours", "gpu_hours", "bytes")
        },
    }


def stamped(cost: Cost) -> dict[str, Any]:
    """An estimate as a build records it, with the moment from which on its work counts."""
    return cost.to_dict() | {"since": datetime.now(UTC).isoformat()}


def _error(took: float, expected: float) -> float | None:
    return round((took - expected) / expected, 4) if expected else None
