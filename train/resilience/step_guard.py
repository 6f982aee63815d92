"""Skipping of bad steps: a loss that is not finite, or a spike, changes no weight."""

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field

from core.config import Config, PositiveInt
from core.errors import FinalFailure

__all__ = ["GuardConfig", "SkippableAdamW", "StepGuard"]

_MIN_LOSSES = 20
"""Number of losses that the median needs before a loss can count as a spike."""


class GuardConfig(Config):
    """Conditions for skipping a step, and for ending a run after skipped steps."""

    max_bad_steps: PositiveInt = 10
    """End the run after this many skipped steps in a row."""
    spike_factor: Annotated[float, Field(gt=1, le=1e9)] | None = 10.0
    """Skip a step whose loss is above this many times the median of the previous losses; null
    turns it off."""
    spike_window: Annotated[int, Field(ge=_MIN_LOSSES, le=10**6)] = 100
    """Number of previous losses for that median; at least 20."""


class StepGuard:
    """Check of each step's loss against the previous losses.

    Its results are the same on all ranks, because all see the mean loss of the global batch, and
    the same after a restart, because checkpoints contain its state.
    """

    def __init__(self, config: GuardConfig, state: Mapping[str, Any] | None = None) -> None:
        """Restore the guard; `state` is the result of `dump` in the checkpoint, if any."""
        state = state or {}
        self._config = config
        self._losses: deque[float] = deque(state.get("losses", ()), maxlen=config.spike_window)
        self._in_a_row = int(state.get("in_a_row", 0))
        self.skipped = int(state.get("skipped", 0))
        """Number of skipped steps of the run."""

    def dump(self) -> dict[str, Any]:
        """Return the state as plain values, for a checkpoint's manifest."""
        return {
            "losses": list(self._losses),
            "in_a_row": self._in_a_row,
            "skipped": self.skipped,
        }

    def find_problem(self, loss: float) -> str:
        """Return why a step with this loss must be skipped; empty if it must not."""
        if not math.isfinite(loss):
            return "the loss is not finite"
        factor = self._config.spike_factor
        if factor is not None and len(self._losses) >= _MIN_LOSSES:
            median = statistics.median(self._losses)
            if loss > factor * median > 0:
                return f"the loss {loss:.4g} is above {factor:g} times the median {median:.4g}"
        return ""

    def record(self, loss: float, problem: str) -> None:
        """Record the end of a step: an update (empty problem), or a skip because of a problem."""
        if not problem:
            self._losses.append(loss)
            self._in_a_row = 0
            return
        self.skipped += 1
        self._in_a_row += 1

    def check(self, step: int, problem: str) -> None:
        """Raise FinalFailure if too many steps in a row were skipped; `problem` is this step's."""
        if self._in_a_row >= self._config.max_bad_steps:
            raise FinalFailure(
                f"step {step}: {problem}; {self._in_a_row} steps in a row were skipped; try a "
                "lower --optimizer.learning-rate, or check the samples that skipped.jsonl lists"
            )


class SkippableAdamW(torch.optim.AdamW):
    """AdamW that can skip its update.

    DeepSpeed has no call that skips an update. With every ZeRO stage it calls `step` of this
    optimizer for the update itself; its work around the update (reducing, casting back, clearing
    gradients) is not affected.
    """

    skip_update = False
    """Whether the next steps change no weight."""
    check_gradients = False
    """Also skip the update if a gradient is not finite: for ZeRO 0 in float32, where DeepSpeed does
    not check it. All ranks have the same gradients there."""
    was_applied = True
    """Whether the last step changed weights."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update the weights, unless the update is skipped."""
        skips = self.skip_update or (self.check_gradients and not self._all_finite())
        self.was_applied = not skips
        return super().step(closure) if self.was_applied else None

    def _all_finite(self) -> bool:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms = torch._foreach_norm([grad for grad in grads if grad is not None])
        return not norms or bool(torch.isfinite(torch.stack(norms)).all())
