"""Validation on the same objects, views and sizes every time, for any number of workers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Dataset

from core.errors import WorkFailed
from core.storage import Storage
from dataset.snapshots.snapshot import Sample
from train.data.augment import AugmentConfig
from train.resilience.collectives import gather
from train.settings.train_config import TrainConfig

__all__ = [
    "NO_AUGMENTATION",
    "SEED",
    "Batch",
    "SingleSampleDataset",
    "Validatable",
    "Validation",
    "eval_mode",
    "held_out_views",
]

Batch = dict[str, Tensor]

SEED = 0
"""Seed of the views of validation. It is not the run's, so that runs with other seeds compare."""
NO_AUGMENTATION = AugmentConfig(rotation=0, scaling=0, camera_noise=0)
"""Settings that leave views and cameras unchanged."""


class Validatable(Protocol):
    """The part of a recipe that validation uses."""

    @property
    def config(self) -> TrainConfig:
        """The configuration of the run; `num_workers` is the world size."""

    def validation_dataset(self, root: Storage, samples: Sequence[Sample]) -> Dataset[Batch]:
        """Return a dataset whose item i is sample i: fixed views, whole and not augmented."""

    def evaluate(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return metrics by name, as scalars: means over views that were not input."""


class Validation:
    """Evaluation of a model on the first objects of a split, in the order of their asset ids."""

    def __init__(self, recipe: Validatable, root: Storage, samples: Sequence[Sample]) -> None:
        self._recipe = recipe
        self._samples = list(samples)
        self._dataset = recipe.validation_dataset(root, self._samples)

    def run(self, module: nn.Module) -> dict[str, float]:
        """Return the mean of each metric over the objects; all ranks call it and get the same.

        Each rank evaluates its part of the objects one by one, and the values are added up in the
        order of the objects, so that the result does not depend on the world size. With ZeRO 3,
        whose forward passes gather weights from all ranks, a rank without an object left evaluates
        one of another rank. Raises WorkFailed naming an object with a metric that is not finite.
        """
        device = next(module.parameters()).device
        rank, world_size = dist.get_rank(), dist.get_world_size()
        own: dict[int, dict[str, float]] = {}
        with eval_mode(module):
            for index in range(rank, self._num_turns(world_size), world_size):
                item = self._dataset[index % len(self._samples)]
                batch = {name: value[None].to(device) for name, value in item.items()}
                metrics = self._recipe.evaluate(module, batch)
                own[index] = {name: float(value) for name, value in metrics.items()}
        rows = {index: row for of_rank in gather(own) for index, row in of_rank.items()}
        return self._means([rows[index] for index in range(len(self._samples))])

    def _num_turns(self, world_size: int) -> int:
        """Return the number of evaluations of all ranks: the same for each with ZeRO 3."""
        count = len(self._samples)
        is_split = self._recipe.config.zero_stage == 3
        return -(-count // world_size) * world_size if is_split else count

    def _means(self, rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
        for sample, row in zip(self._samples, rows, strict=True):
            infinite = [name for name, value in row.items() if not abs(value) < float("inf")]
            if infinite:
                name = infinite[0]
                raise WorkFailed(f"{sample.asset_id}: validation: {name} is {row[name]}")
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode without gradients while the block runs.

    Afterwards the modes of all its parts and the random states are restored.
    """
    modes = {part: part.training for part in module.modules()}
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode


class SingleSampleDataset(Dataset[Batch]):
    """Dataset whose item i is sample i, read at position 0 of an order that has only this sample.

    So the views of an object do not depend on the number of other objects.
    """

    def __init__(
        self, make: Callable[[Sequence[Sample]], Dataset[Batch]], samples: Sequence[Sample]
    ) -> None:
        self._datasets = [make([sample]) for sample in samples]

    def __getitem__(self, index: int) -> Batch:
        return self._datasets[index][0]


def held_out_views(batch: Batch) -> slice:
    """Return the slice of target views that were not input; if there are none, of all views."""
    inputs, views = batch["images"].shape[1], batch["target_camera_to_world"].shape[1]
    return slice(inputs if views > inputs else 0, None)
