"""Validation: the same objects, views and sizes every time, whatever the number of workers."""

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

__all__ = ["SEED", "STILL", "Batch", "EachAlone", "Judge", "Validation", "held_out", "looking"]

Batch = dict[str, Tensor]

SEED = 0
"""Which views validation looks at; not the run's, so that runs with other seeds compare."""
STILL = AugmentConfig(rotation=0, scaling=0, camera_noise=0)
"""No augmentation."""


class Judge(Protocol):
    """What validation asks of a recipe."""

    def validation_dataset(self, root: Storage, samples: Sequence[Sample]) -> Dataset[Batch]:
        """Item i is sample i: views that do not change, whole and not augmented."""

    def evaluate(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Metrics by name, as scalars: means over views that the model did not see."""


class Validation:
    """Judges a model by the first objects of a split, in the order of their asset ids."""

    def __init__(self, judge: Judge, root: Storage, samples: Sequence[Sample]) -> None:
        self._judge = judge
        self._samples = list(samples)
        self._dataset = judge.validation_dataset(root, self._samples)

    def run(self, module: nn.Module) -> dict[str, float]:
        """The mean of each metric over the objects; every rank calls it and gets the same.

        Objects are judged one by one, shared out over the ranks, and added up in their order, so
        that the numbers do not depend on how many ranks there are. Raises WorkFailed naming an
        object with a metric that is not finite.
        """
        device = next(module.parameters()).device
        rank, world = dist.get_rank(), dist.get_world_size()
        own: dict[int, dict[str, float]] = {}
        with looking(module):
            for place in range(rank, len(self._samples), world):
                item = self._dataset[place]
                batch = {name: value[None].to(device) for name, value in item.items()}
                metrics = self._judge.evaluate(module, batch)
                own[place] = {name: float(value) for name, value in metrics.items()}
        found = {place: row for share in gather(own) for place, row in share.items()}
        return self._means([found[place] for place in range(len(self._samples))])

    def _means(self, rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
        for sample, row in zip(self._samples, rows, strict=True):
            bad = [name for name, value in row.items() if not abs(value) < float("inf")]
            if bad:
                raise WorkFailed(f"{sample.asset_id}: validation: {bad[0]} is {row[bad[0]]}")
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


@contextmanager
def looking(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, that leaves no trace: modes and random numbers return."""
    modes = {part: part.training for part in module.modules()}
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode


class EachAlone(Dataset[Batch]):
    """Item i is sample i as the first position of an order of its own.

    So an object's views do not depend on how many others there are.
    """

    def __init__(
        self, make: Callable[[Sequence[Sample]], Dataset[Batch]], samples: Sequence[Sample]
    ) -> None:
        self._alone = [make([sample]) for sample in samples]

    def __getitem__(self, place: int) -> Batch:
        return self._alone[place][0]


def held_out(batch: Batch) -> slice:
    """Supervision views that were not input; where there are no such views, all of them."""
    inputs, views = batch["images"].shape[1], batch["target_camera_to_world"].shape[1]
    return slice(inputs if views > inputs else 0, None)
