"""Utilisation of the devices in a step: memory, and FLOP/s relative to their peak."""

import logging
from typing import Any

import torch

from core.errors import LrmError
from train.estimate.outline import count_step
from train.estimate.sizing import DEVICES
from train.models.recompute import nothing_recomputed

__all__ = ["Utilisation", "known_peak_flops"]

_log = logging.getLogger(__name__)


class Utilisation:
    """Model FLOPs utilisation (MFU) of a recipe's steps: operations / (seconds x devices x peak).

    Operations are counted as in `lrm train --dry-run`, but without those that activation
    checkpointing repeats.
    """

    def __init__(self, recipe: Any) -> None:
        """Count the operations of a step, if the peak of the devices is known."""
        config = recipe.config
        peak = config.peak_flops or known_peak_flops(config.precision)
        self._peak = config.world * peak if peak else None
        self._operations = _count_operations(recipe) if peak else None

    def metrics(self, seconds: float) -> dict[str, float]:
        """Return the metrics of a step of this many seconds.

        `mfu` if the peak is known, `gpu_memory` (peak of the allocated bytes) if there is a GPU.
        """
        metrics: dict[str, float] = {}
        if self._operations and self._peak:
            metrics["mfu"] = round(self._operations / max(seconds, 1e-9) / self._peak, 5)
        if torch.cuda.is_available():
            metrics["gpu_memory"] = torch.cuda.max_memory_allocated()
        return metrics


def known_peak_flops(precision: str) -> float | None:
    """Return the dense FLOP/s of this process's GPU by its data sheet; None for unknown GPUs."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name().lower()
    # An H200 has the compute units of an H100.
    device = next((DEVICES[key] for key in DEVICES if key in name.replace("h200", "h100")), None)
    return device.peak[precision] if device else None


def _count_operations(recipe: Any) -> float | None:
    config = recipe.config
    if not hasattr(recipe, "outline"):
        return None
    try:
        with nothing_recomputed():
            cost = count_step(recipe.outline(), config.micro)
    except (LrmError, RuntimeError, NotImplementedError) as error:
        _log.warning("cannot count the operations of a step, so the metrics have no mfu: %s", error)
        return None
    return (sum(cost.forward.values()) + cost.backward) * config.batch_size / config.micro
