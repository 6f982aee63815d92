"""What the devices make of a step: memory, and operations against their peak."""

import logging
from typing import Any

import torch

from core.errors import LrmError
from train.estimate.outline import count_step
from train.estimate.sizing import DEVICES
from train.models.recompute import nothing_recomputed

__all__ = ["Utilisation", "known_peak"]

_log = logging.getLogger(__name__)


class Utilisation:
    """Model FLOP/s utilisation (MFU) of a recipe's steps: operations / (seconds x devices x peak).

    Operations are counted as `lrm train --dry-run` does, but what is computed again for less memory
    does not count.
    """

    def __init__(self, recipe: Any) -> None:
        """Counts the recipe's operations if the peak is known, else nothing."""
        config = recipe.config
        peak = config.peak_flops or known_peak(config.precision)
        self._available = config.world * peak if peak else None
        self._operations = _operations(recipe) if peak else None

    def metrics(self, seconds: float) -> dict[str, float]:
        """Of a step that took so long: `mfu` where the peak is known, `gpu_memory` in bytes."""
        found: dict[str, float] = {}
        if self._operations and self._available:
            found["mfu"] = round(self._operations / max(seconds, 1e-9) / self._available, 5)
        if torch.cuda.is_available():
            found["gpu_memory"] = torch.cuda.max_memory_allocated()
        return found


def known_peak(precision: str) -> float | None:
    """Dense FLOP/s of this process's GPU by its data sheet; None if it is none that is known."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name().lower()
    # An H200 is an H100 with more memory.
    found = next((DEVICES[key] for key in DEVICES if key in name.replace("h200", "h100")), None)
    return found.peak[precision] if found else None


def _operations(recipe: Any) -> float | None:
    config = recipe.config
    if not hasattr(recipe, "outline"):
        return None
    try:
        with nothing_recomputed():
            cost = count_step(recipe.outline(), config.micro)
    except (LrmError, RuntimeError, NotImplementedError) as error:
        _log.warning("operations of a step cannot be counted, no mfu: %s", error)
        return None
    return (sum(cost.forward.values()) + cost.backward) * config.batch_size / config.micro
