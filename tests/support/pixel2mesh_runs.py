"""Short trainings of the recipe `pixel2mesh`, as functions that ranks call."""

import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from core.storage import Storage
from train.loop.engine import train
from train.recipes.pixel2mesh import Pixel2MeshRecipe, Pixel2MeshTrainConfig

__all__ = ["SMALL", "make_settings", "train_pixel2mesh"]

SMALL: Mapping[str, Any] = {
    "batch_size": 4,
    "preset": "tiny",
    "model": {"num_vertices": 24, "image_size": 32, "encoder_width": 2, "hidden": 16},
    "data": {"num_points": 300},
    "checkpoint_every": 2,
    "preview_every": 0,
    "validate_every": 0,
    "loggers": [],
    "optimizer": {"schedule_steps": 8, "learning_rate": 1e-3},
}


def make_settings(
    dataset: tuple[Storage, str], out: Path, steps: int, **more: Any
) -> dict[str, Any]:
    """Return the settings of a run of a few steps; `more` replaces values of SMALL."""
    root, snapshot = dataset
    required = {"root": root.uri, "snapshot": snapshot, "out": str(out), "steps": steps}
    return Pixel2MeshTrainConfig.load({**SMALL, **required, **more}).dump()


def train_pixel2mesh(settings: Mapping[str, Any], killed_at: int | None = None) -> list[str]:
    """Train as this rank and return the log messages.

    With `killed_at`, rank 0 is killed (SIGKILL) when it logs this step.
    """
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)

    def kill(row: Mapping[str, Any]) -> None:
        if row["step"] == killed_at and dist.get_rank() == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    train(Pixel2MeshRecipe(Pixel2MeshTrainConfig.load(settings)), on_step=kill)
    return messages
