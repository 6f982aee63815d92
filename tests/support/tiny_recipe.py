"""A recipe that trains in milliseconds and fails on request, for tests of the training loop."""

import os
import resource
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from core.errors import LrmError
from core.retry import Backoff
from core.storage import Storage
from dataset.snapshots.snapshot import Sample, open_snapshot
from tests.support.ranks import Ranks
from train.checkpoints import uploads
from train.data.loader import PositionDataset
from train.data.order import sample_rng
from train.data.patches import ViewDataConfig, ViewDataset
from train.data.sample_dataset import Reading
from train.loop import engine
from train.loop.validation import Validation
from train.settings.train_config import TrainConfig

SIZE = 96
START_LOG = "built.txt"
"""File in a run folder to which every start appends a line."""
FULL_DISK_BYTES = 40_000
"""Largest file in bytes while the disk is full: logs fit, checkpoints do not."""


class TinyConfig(TrainConfig):
    """Settings of the recipe; the fields `*_at` are positions of the order at which it fails."""

    nan_at: tuple[int, ...] = ()
    spike_at: tuple[int, ...] = ()
    gradient_nan_at: tuple[int, ...] = ()
    hang_at: tuple[int, ...] = ()
    terminate_at: tuple[int, ...] = ()
    full_disk_at: tuple[int, ...] = ()
    free_disk_at: tuple[int, ...] = ()
    item_seconds: float = 0.0
    real_views: bool = False
    """Train on the views of the dataset instead of random vectors."""


class TinyRecipe:
    """A recipe that learns a linear map from samples that depend on their positions only."""

    def __init__(self, config: TinyConfig) -> None:
        self.config = config
        self.num_evaluated = 0

    def build(self, *, fresh: bool = True) -> nn.Module:
        if dist.is_initialized() and dist.get_rank() == 0:
            with open(Path(self.config.out) / START_LOG, "a") as file:
                file.write("fresh\n" if fresh else "to be loaded over\n")
        return _Objective()

    def dataset(self, root: Storage, samples: Sequence[Sample]) -> PositionDataset:
        return _Views(self.config, root, samples) if self.config.real_views else _Items(self.config)

    def preview_dataset(self, root: Storage, samples: Sequence[Sample]) -> Any:
        return _Items(self.config)

    def validation_dataset(self, root: Storage, samples: Sequence[Sample]) -> Any:
        return _Items(self.config)

    def evaluate(self, module: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.num_evaluated += 1
        return {"error": module(batch)["loss"]}

    def preview(self, module: nn.Module, batch: dict[str, Tensor]) -> Image.Image:
        return Image.new("RGB", (8, 8))


class _Items(Dataset[dict[str, Tensor]]):
    def __init__(self, config: TinyConfig) -> None:
        self._config = config

    def read(self, position: int) -> Reading:
        return Reading(self[position])

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        config = self._config
        time.sleep(config.item_seconds)
        if position in config.hang_at:
            time.sleep(3600)
        if position in config.terminate_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if position in config.full_disk_at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_DISK_BYTES, resource.RLIM_INFINITY))
        if position in config.free_disk_at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        numbers = sample_rng(config.seed, position).normal(size=SIZE)
        x = torch.from_numpy(numbers).float()
        factor = float("nan") if position in config.nan_at else 1.0
        factor *= 1e4 if position in config.spike_at else 1.0
        broken = torch.tensor(float(position in config.gradient_nan_at))
        return {"x": x, "y": x.flip(0) * 0.5, "factor": torch.tensor(factor), "broken": broken}


class _Views:
    def __init__(self, config: TinyConfig, root: Storage, samples: Sequence[Sample]) -> None:
        views = ViewDataConfig(
            num_inputs=1, num_targets=1, patch_size=4, target_size_min=4, target_size_max=8
        )
        self._views = ViewDataset(root, samples, views, input_size=8, seed=config.seed)

    def read(self, position: int) -> Reading:
        item, replacement = self._views.read(position)
        x = item["images"].flatten()[:SIZE] - 0.5
        no_fault = {"factor": torch.tensor(1.0), "broken": torch.tensor(0.0)}
        return Reading({"x": x, "y": x.flip(0) * 0.5, **no_fault}, replacement)


class _Objective(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(SIZE, SIZE)
        self.second = nn.Linear(SIZE, SIZE)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        x = batch["x"].to(self.first.weight.dtype)
        prediction = self.second(torch.tanh(self.first(x)))
        error = ((prediction.float() - batch["y"]) ** 2).mean(1) * batch["factor"]
        if batch["broken"].any():
            # Adds 0 to the loss but NaN to its gradient: the derivative of sqrt(w) at w = 0.
            error = error + torch.sqrt((prediction.float() * 0).sum(1).abs())
        return {"loss": error.mean()}


def make_config(dataset: tuple[Storage, str], out: Path, steps: int, **more: Any) -> TinyConfig:
    """Return the configuration of a short run without previews and validation."""
    root, snapshot = dataset
    values: dict[str, Any] = {
        "root": root.uri,
        "snapshot": snapshot,
        "out": str(out),
        "steps": steps,
        "batch_size": 6,
        "checkpoint_every": 2,
        "preview_every": 0,
        "validate_every": 0,
        "loggers": [],
        "slow_ranks_every": 0,
        "optimizer": {"learning_rate": 1e-2, "schedule_steps": 8, "weight_decay": 0.1},
    }
    return TinyConfig.load(values | more)


def train_configs(values: Sequence[dict[str, Any]]) -> list[str]:
    """Train with each configuration in order; return the error of each, empty for success."""
    assert hasattr(uploads, "_BACKOFF")
    uploads._BACKOFF = Backoff(first_seconds=0.05)
    # A write beyond the size limit then fails with an OSError instead of killing the process.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    errors = []
    for config in values:
        try:
            engine.train(TinyRecipe(TinyConfig.load(config)))
            errors.append("")
        except LrmError as error:
            errors.append(f"{type(error).__name__}: {error}")
    return errors


def validate_two_objects(values: dict[str, Any]) -> tuple[int, dict[str, float]]:
    """Validate on two objects as this rank; return how many it evaluated, and the metrics."""
    recipe = TinyRecipe(TinyConfig.load(values))
    root = Storage(recipe.config.root)
    samples = open_snapshot(root, recipe.config.snapshot).samples[:2]
    torch.manual_seed(0)
    metrics = Validation(recipe, root, samples).run(recipe.build())
    return recipe.num_evaluated, metrics


def run_group(ranks: Ranks, world: int, configs: Sequence[TinyConfig]) -> list[str]:
    """Train with each configuration in one process group; return rank 0's errors.

    An empty string means success.
    """
    values = [config.model_copy(update={"num_workers": world}).dump() for config in configs]
    return ranks.run(world, train_configs, values)[0]
