"""Damaged samples: the record of a replacement, and the limit on their number."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.config import Config, Fraction, PositiveInt
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
    "run `lrm verify --root ROOT` to list damaged files and repair what can be repaired "
    "(docs/guide/maintenance.md)"
)


class FaultConfig(Config):
    """Limit on damaged or missing samples before a run ends."""

    max_share: Fraction = 0.01
    """Maximum share of replacement samples among the last `window` samples; more end the run. 0
    ends it at the first one."""
    window: PositiveInt = 1000
    """Number of samples for `max_share`, rounded up to whole steps."""


@dataclass(frozen=True)
class Fault:
    """A sample that could not be read at its position."""

    position: int
    asset_id: str
    shard: str
    cause: str

    def __str__(self) -> str:
        return f"{self.asset_id} in {self.shard}: {self.cause}"


@dataclass(frozen=True)
class Replacement:
    """The replacement sample of one position."""

    faults: Sequence[Fault]
    """The sample of the order, then the replacement samples that are damaged, too."""
    replaced_by: str
    """Asset id of the sample that is used."""


def gather_replacements(own: Sequence[Replacement]) -> list[Replacement]:
    """Return the replacements of all ranks, sorted by position; all ranks call it."""
    replacements = [one for of_rank in gather(list(own)) for one in of_rank]
    return sorted(replacements, key=lambda one: one.faults[0].position)


class FaultCounter:
    """Counter of replaced samples per step; the same on all ranks and after a restart."""

    def __init__(
        self, config: FaultConfig, batch_size: int, state: Mapping[str, Any] | None = None
    ) -> None:
        """Restore the counter; `state` is the result of `dump` in the checkpoint, if any."""
        state = state or {}
        self._config = config
        self._steps = -(-config.window // batch_size)
        self._batch_size = batch_size
        self._recent: deque[int] = deque(state.get("recent", ()), maxlen=self._steps)
        self.replaced = int(state.get("replaced", 0))
        """Number of replaced samples of the run."""

    def dump(self) -> dict[str, Any]:
        """Return the state as plain values, for a checkpoint's manifest."""
        return {"recent": list(self._recent), "replaced": self.replaced}

    def record(self, replaced: int) -> None:
        """Add the number of replaced samples of a step."""
        self._recent.append(replaced)
        self.replaced += replaced

    def check(self, step: int, replacements: Sequence[Replacement]) -> None:
        """Raise FinalFailure if too many of the last samples were replaced.

        `replacements` are those of this step; without any, nothing is raised.
        """
        num_samples, recent = self._steps * self._batch_size, sum(self._recent)
        if replacements and recent > self._config.max_share * num_samples:
            raise FinalFailure(
                f"step {step}: {replacements[-1].faults[0]}; {recent} of the last {num_samples} "
                f"samples were damaged, and --data-faults.max-share is "
                f"{self._config.max_share:g}: {REMEDY}; replaced.jsonl lists the samples"
            )
