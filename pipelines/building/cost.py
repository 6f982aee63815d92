"""What work costs: expected beforehand by stage, added up afterwards, and the two side by side."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import Field

from core.config import Config
from core.errors import WorkFailed
from dataset.catalog.event_log import Catalog

__all__ = [
    "Cost",
    "PriceConfig",
    "StageCost",
    "compare",
    "expected_objects",
    "money",
    "spent",
    "stamped",
]

Price = Annotated[float, Field(ge=0)] | None
_GB = 1e9


class PriceConfig(Config):
    """What machines and space cost; what has no price is not counted."""

    currency: str = "USD"
    core_hour: Price = None
    """Of one CPU core for one hour."""
    gpu_hour: Price = None
    """Of one GPU for one hour, the cores that come with it included."""
    gb_month: Price = None
    """Of 10^9 stored bytes for one month."""


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What one stage takes for some objects."""

    objects: float
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    bytes: float = 0.0
    """Of what it adds to the dataset."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What work takes, by stage. Hours are those that the work reserves, used in full or not."""

    stages: Mapping[str, StageCost]

    @property
    def core_hours(self) -> float:
        """Of all stages."""
        return sum(stage.core_hours for stage in self.stages.values())

    @property
    def gpu_hours(self) -> float:
        """Of all stages."""
        return sum(stage.gpu_hours for stage in self.stages.values())

    @property
    def num_bytes(self) -> int:
        """Of all stages."""
        return round(sum(stage.bytes for stage in self.stages.values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "core_hours": round(self.core_hours, 4),
            "gpu_hours": round(self.gpu_hours, 4),
            "bytes": self.num_bytes,
            "stages": {
                name: {key: round(value, 4) for key, value in asdict(stage).items()}
                for name, stage in self.stages.items()
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote. Raises WorkFailed if something else did."""
        try:
            stages = {name: StageCost(**stage) for name, stage in values["stages"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise WorkFailed(f"build.json: its estimate is unreadable: {error}") from None
        return cls(stages=stages)


def money(cost: Cost, prices: PriceConfig) -> dict[str, Any] | None:
    """What the work costs and what keeping its bytes costs a month; None without any price."""
    priced = {}
    if prices.core_hour is not None:
        priced["cores"] = round(cost.core_hours * prices.core_hour, 2)
    if prices.gpu_hour is not None:
        priced["gpus"] = round(cost.gpu_hours * prices.gpu_hour, 2)
    stored = None if prices.gb_month is None else cost.num_bytes / _GB * prices.gb_month
    if not priced and stored is None:
        return None
    return {
        "currency": prices.currency,
        "work": round(sum(priced.values()), 2),
        **priced,
        "per_month": None if stored is None else round(stored, 2),
    }


def expected_objects(
    starting: Mapping[str, float], stages: tuple[str, ...], shares: Mapping[str, float]
) -> dict[str, float]:
    """Objects per stage: n_s = starting_s + n_(s-1) * share_s.

    `starting` have the stage as their next one, `shares` of those who passed the stage before reach
    a stage.
    """
    expected: dict[str, float] = {}
    coming = 0.0
    for stage in stages:
        coming = starting.get(stage, 0.0) + coming * shares[stage]
        expected[stage] = coming
    return expected


def spent(catalog: Catalog, since: datetime, reserved: Mapping[str, Mapping[str, float]]) -> Cost:
    """What the events since a moment took.

    `reserved`: per stage, the cores and the GPUs (`core_hours`, `gpu_hours`) that it holds.
    """
    stages = {}
    for row in catalog.effort(since).to_pylist():
        if row["stage"] in reserved:
            hours = row["seconds"] / 3600
            held = {kind: hours * number for kind, number in reserved[row["stage"]].items()}
            stages[row["stage"]] = StageCost(objects=row["objects"], bytes=row["bytes"], **held)
    order = [name for name in reserved if name in stages]
    return Cost(stages={name: stages[name] for name in order})


def compare(
    build: Mapping[str, Any],
    catalog: Catalog,
    reserved: Mapping[str, Mapping[str, float]],
    prices: PriceConfig,
) -> dict[str, Any] | None:
    """What the last build expected beside what it took; None if it recorded no estimate.

    `error` is (took - expected) / expected of hours and bytes, once the build has ended.
    """
    if "estimate" not in build:
        return None
    since = datetime.fromisoformat(build["estimate"]["since"])
    expected = Cost.from_dict(build["estimate"])
    took = spent(catalog, since, reserved)
    ended = bool(build.get("ended"))
    return {
        "since": since.isoformat(),
        "ended": ended,
        "expected": expected.to_dict() | {"money": money(expected, prices)},
        "took": took.to_dict() | {"money": money(took, prices)},
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
