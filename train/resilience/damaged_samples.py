"""Damaged samples: the record of a replacement, their count, and how many are too many."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import PositiveInt

from core.config import Config, Fraction
from core.errors import FinalFailure
from train.resilience.collectives import gather

__all__ = [
    "REMEDY",
    "Fault",
    "FaultConfig",
    "FaultCounter",
    "Replacement",
    "gather_replacements",
]

REMEDY = (
    "`lrm verify --root ROOT` names what is damaged and mends what it can (docs/guide/operating.md)"
)


class FaultConfig(Config):
    """How many samples may be damaged or missing before a run ends."""

    max_share: Fraction = 0.01
    """Largest share of replaced samples among the last `window`; 0 tolerates none."""
    window: PositiveInt = 1000
    """Positions that the share is of, in whole steps."""


@dataclass(frozen=True)
class Fault:
    """A sample that was wanted at a position and could not be used."""

    position: int
    asset_id: str
    shard: str
    cause: str

    def __str__(self) -> str:
        return f"{self.asset_id} in {self.shard}: {self.cause}"


@dataclass(frozen=True)
class Replacement:
    """Which sample a position has instead of a damaged one."""

    faults: Sequence[Fault]
    """The sample of the order, then the replacements that were tried and are damaged, too."""
    replaced_by: str
    """The asset id of the sample that the item is of."""


def gather_replacements(own: Sequence[Replacement]) -> list[Replacement]:
    """Return the replacements of all ranks, by position; all ranks call it."""
    everything = [one for share in gather(list(own)) for one in share]
    return sorted(everything, key=lambda one: one.faults[0].position)


class FaultCounter:
    """Counts the replaced samples of each step; the same on all ranks and after a restart."""

    def __init__(
        self, config: FaultConfig, batch_size: int, state: Mapping[str, Any] | None = None
    ) -> None:
        """`state` is what `dump` returned when the checkpoint was written."""
        state = state or {}
        self._config = config
        self._steps = -(-config.window // batch_size)
        self._batch_size = batch_size
        self._recent: deque[int] = deque(state.get("recent", ()), maxlen=self._steps)
        self.replaced = int(state.get("replaced", 0))
        """Samples of the run that another stood in for."""

    def dump(self) -> dict[str, Any]:
        """Plain values for a checkpoint's manifest."""
        return {"recent": list(self._recent), "replaced": self.replaced}

    def settle(self, replaced: int) -> None:
        """Count the replaced samples of a step that is done."""
        self._recent.append(replaced)
        self.replaced += replaced

    def check(self, step: int, found: Sequence[Replacement]) -> None:
        """Raise FinalFailure if too many of the last samples were replaced; these in this step."""
        seen, recent = self._steps * self._batch_size, sum(self._recent)
        if found and recent > self._config.max_share * seen:
            raise FinalFailure(
                f"step {step}: {found[-1].faults[0]}; {recent} of the last {seen} samples were "
                f"damaged, and data_faults.max_share is {self._config.max_share:g}: {REMEDY}; "
                "replaced.jsonl lists them"
            )
