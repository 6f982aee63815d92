"""The cost of work per stage: reserved hours, stored bytes, and money."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from core.errors import WorkFailed
from pipelines.building.build_config import PriceConfig

__all__ = ["RANGED", "Cost", "StageCost", "money"]

_GB = 1e9
RANGED = ("core_hours", "gpu_hours", "bytes")
"""The costs that have a range."""


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """The cost of one stage for some objects."""

    objects: float
    """Number of objects; an estimate may be fractional."""
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    bytes: float = 0.0
    """Bytes that the stage adds to the dataset."""
    range_factor: float = 1.0
    """The costs are expected between cost / range_factor and cost * range_factor."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of work, by stage. Hours are reserved hours, whether fully used or not."""

    stages: Mapping[str, StageCost]

    @property
    def core_hours(self) -> float:
        """The core-hours of all stages."""
        return sum(stage.core_hours for stage in self.stages.values())

    @property
    def gpu_hours(self) -> float:
        """The GPU-hours of all stages."""
        return sum(stage.gpu_hours for stage in self.stages.values())

    @property
    def bytes(self) -> float:
        """The bytes that all stages add to the dataset."""
        return sum(stage.bytes for stage in self.stages.values())

    @property
    def num_bytes(self) -> int:
        """The bytes that all stages add to the dataset, as a whole number."""
        return round(self.bytes)

    def range_of(self, name: str) -> tuple[float, float]:
        """Return the expected range of `core_hours`, `gpu_hours` or `bytes`.

        All stages are assumed to err to the same side, as they do if the number of objects errs.
        """
        pairs = [(getattr(stage, name), stage.range_factor) for stage in self.stages.values()]
        return (
            sum(cost / factor for cost, factor in pairs),
            sum(cost * factor for cost, factor in pairs),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        ranges = {name: self.range_of(name) for name in RANGED}
        return {
            "core_hours": round(self.core_hours, 4),
            "gpu_hours": round(self.gpu_hours, 4),
            "bytes": self.num_bytes,
            **{f"{name}_range": [round(end, 4) for end in ranges[name]] for name in RANGED},
            "stages": {
                name: {key: round(value, 4) for key, value in asdict(stage).items()}
                for name, stage in self.stages.items()
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the cost that `to_dict` wrote. Raises WorkFailed for anything else."""
        try:
            stages = {name: StageCost(**stage) for name, stage in values["stages"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise WorkFailed(f"build.json: cannot read the estimate: {error}") from None
        return cls(stages=stages)


def money(cost: Cost, prices: PriceConfig) -> dict[str, Any] | None:
    """Return the price of the work and of a month of storing its bytes; None without any price."""
    machines = {}
    if prices.core_hour is not None:
        machines["cores"] = round(cost.core_hours * prices.core_hour, 2)
    if prices.gpu_hour is not None:
        machines["gpus"] = round(cost.gpu_hours * prices.gpu_hour, 2)
    storage = None if prices.gb_month is None else cost.num_bytes / _GB * prices.gb_month
    if not machines and storage is None:
        return None
    return {
        "currency": prices.currency,
        "work": round(sum(machines.values()), 2),
        **machines,
        "per_month": None if storage is None else round(storage, 2),
    }
