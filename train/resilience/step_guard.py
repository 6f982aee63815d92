"""Which steps count: one whose loss is no number, or far from those before, changes no weight."""

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt

from core.config import Config
from core.errors import FinalFailure

__all__ = ["GuardConfig", "StepGuard", "VetoedAdamW"]

_LEAST_LOSSES = 20
"""Before so many, nothing is known of what is usual."""


class GuardConfig(Config):
    """When a step is skipped, and when a run gives up."""

    max_bad_steps: PositiveInt = 10
    """So many skipped steps in a row end the run."""
    spike_factor: Annotated[float, Field(gt=1)] | None = 10.0
    """A loss above this many times the median of the losses before is a spike; null never."""
    spike_window: Annotated[int, Field(ge=_LEAST_LOSSES)] = 100
    """Losses that the median is of."""


class StepGuard:
    """Judges each step by its loss, a function of the losses before alone.

    The same on all ranks, which all see the mean loss of the global batch, and the same after a
    restart, since checkpoints hold its state.
    """

    def __init__(self, config: GuardConfig, state: Mapping[str, Any] | None = None) -> None:
        """`state` is what `dump` returned when the checkpoint was written."""
        state = state or {}
        self._config = config
        self._losses: deque[float] = deque(state.get("losses", ()), maxlen=config.spike_window)
        self._in_a_row = int(state.get("in_a_row", 0))
        self.skipped = int(state.get("skipped", 0))
        """Steps of the run that changed no weight."""

    def dump(self) -> dict[str, Any]:
        """Plain values for a checkpoint's manifest."""
        return {
            "losses": list(self._losses),
            "in_a_row": self._in_a_row,
            "skipped": self.skipped,
        }

    def judge(self, loss: float) -> str:
        """Why a step with this loss must not count; empty if it may."""
        if not math.isfinite(loss):
            return "the loss is not finite"
        factor = self._config.spike_factor
        if factor is not None and len(self._losses) >= _LEAST_LOSSES:
            usual = statistics.median(self._losses)
            if loss > factor * usual > 0:
                return f"the loss {loss:.4g} is above {factor:g} times the median {usual:.4g}"
        return ""

    def settle(self, loss: float, problem: str) -> None:
        """Note how a step ended: with an update, or without one because of a problem."""
        if not problem:
            self._losses.append(loss)
            self._in_a_row = 0
            return
        self.skipped += 1
        self._in_a_row += 1

    def check(self, step: int, problem: str) -> None:
        """Raise FinalFailure if too many steps in a row were skipped; this one for `problem`."""
        if self._in_a_row >= self._config.max_bad_steps:
            raise FinalFailure(
                f"step {step}: {problem}; {self._in_a_row} steps in a row were skipped: a lower "
                "--optimizer.learning-rate, or a look at the samples in skipped.jsonl, may help"
            )


class VetoedAdamW(torch.optim.AdamW):
    """AdamW whose next step can be called off.

    DeepSpeed has no call for it: below every ZeRO stage, this is where the update is made. What it
    does around it (reducing, casting back, clearing gradients) goes on as ever.
    """

    veto = False
    """Whether the next steps change nothing."""
    check_gradients = False
    """Also change nothing if a gradient is not finite: for ZeRO 0 in float32, where nobody else
    looks. All ranks see the same gradients there."""
    applied = True
    """Whether the last step changed anything."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update, unless it was called off."""
        self.applied = not (self.veto or (self.check_gradients and not self._all_finite()))
        return super().step(closure) if self.applied else None

    def _all_finite(self) -> bool:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms = torch._foreach_norm([grad for grad in grads if grad is not None])
        return not norms or bool(torch.isfinite(torch.stack(norms)).all())
