"""What work costs, by stage: the hours that it reserves, the bytes that it adds, and money."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from core.errors import WorkFailed
from pipelines.building.build_config import PriceConfig

__all__ = ["Cost", "StageCost", "expected_objects", "money"]

_GB = 1e9


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
