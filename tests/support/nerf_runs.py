"""Short trainings and validations of the recipe `nerf`, as functions that ranks call."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.storage import Storage
from dataset.snapshots.snapshot import open_snapshot
from train.loop.engine import train
from train.loop.validation import Validation
from train.recipes.nerf import NerfRecipe, NerfTrainConfig

__all__ = ["make_config", "train_nerf", "validate", "validate_new_model"]

Dataset = tuple[Storage, str]
"""A root and the id of a snapshot in it."""
SMALL: Mapping[str, Any] = {
    "batch_size": 1,
    "preset": "tiny",
    "model": {"transformer": {"num_layers": 1}, "nerf": {"samples_per_ray": 8}},
    "loss": {"lpips": 0},
    "data": {
        "num_inputs": 2,
        "num_targets": 1,
        "patch_size": 8,
        "target_size_min": 12,
        "target_size_max": 16,
    },
    "checkpoint_every": 2,
    "preview_every": 0,
    "preview_size": 16,
    "validation_samples": 2,
    "optimizer": {"schedule_steps": 8},
}


def make_config(dataset: Dataset, out: Path, steps: int, **more: Any) -> NerfTrainConfig:
    """Return the configuration of a run of a few steps; `more` replaces values of SMALL."""
    root, snapshot = dataset
    required = {"root": root.uri, "snapshot": snapshot, "out": str(out), "steps": steps}
    return NerfTrainConfig.load({**SMALL, **required, **more})


def train_nerf(settings: Mapping[str, Any]) -> list[str]:
    """Train as this rank; return the log messages."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    train(NerfRecipe(NerfTrainConfig.load(settings)))
    return messages


def validate(recipe: NerfRecipe, dataset: Dataset, module: nn.Module) -> dict[str, float]:
    """Validate on the validation split, which must have three objects; return the metrics."""
    root, snapshot = dataset
    samples = open_snapshot(root, snapshot).of_split("validation")
    assert len(samples) == 3
    return Validation(recipe, root, samples).run(module)


def validate_new_model(settings: Mapping[str, Any]) -> dict[str, float]:
    """Validate a model with seeded random weights in the process group of this rank."""
    config = NerfTrainConfig.load(settings)
    recipe = NerfRecipe(config)
    torch.manual_seed(3)
    return validate(recipe, (Storage(config.root), config.snapshot), recipe.build())
