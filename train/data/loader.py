"""Loads batches ahead of their step, in processes or in one thread."""

import functools
import multiprocessing
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from train.data.sample_dataset import Item, Reading
from train.resilience.damaged_samples import Replacement

__all__ = ["MicroBatch", "PositionDataset", "make_loader"]

_PRELOADED = ["train.data.patches", "train.data.whole_frames"]
"""Imported once, in the process that the loader's processes are forked from."""


class PositionDataset(Protocol):
    """What a loader reads from, such as a `SampleDataset`."""

    def read(self, position: int) -> Reading:
        """Return the item at a position of the order, and what replaced its sample."""


class MicroBatch(NamedTuple):
    """The items of a micro-batch, stacked."""

    tensors: Item
    replacements: list[Replacement]
    """What replaced the damaged samples among them."""


def make_loader(
    dataset: PositionDataset, positions: Iterable[list[int]], num_workers: int, prefetch: int = 2
) -> Generator[MicroBatch, None, None]:
    """Yield the micro-batches at the given positions, in their order.

    `num_workers` processes have `prefetch` micro-batches each ready. With none, a thread has one
    ready. On CUDA the tensors are in pinned memory. None of this changes what is in a batch. Close
    the iterator to end its processes or thread.
    """
    context = None
    if num_workers:
        # A plain fork would inherit the threads of gloo and DeepSpeed.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
    loader = DataLoader(
        _Readings(dataset),
        collate_fn=_collate,
        batch_sampler=positions,
        num_workers=num_workers,
        multiprocessing_context=context,
        prefetch_factor=prefetch if num_workers else None,
        pin_memory=torch.cuda.is_available(),
        # It draws a seed for its processes, which no item uses: not from the run's own numbers.
        generator=torch.Generator(),
    )
    return _each(loader) if num_workers else _one_ahead(loader)


class _Readings(Dataset[Reading]):
    """A dataset by what `read` returns: torch's loader asks for items by index."""

    def __init__(self, dataset: PositionDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, position: int) -> Reading:
        return self._dataset.read(position)


def _collate(readings: Sequence[Reading]) -> MicroBatch:
    return MicroBatch(
        tensors=default_collate([reading.item for reading in readings]),
        replacements=[one.replacement for one in readings if one.replacement is not None],
    )


def _each(batches: Iterable[MicroBatch]) -> Generator[MicroBatch, None, None]:
    yield from batches


def _one_ahead(batches: Iterable[MicroBatch]) -> Generator[MicroBatch, None, None]:
    """The batches; while one is used, a thread makes the next. Its errors are raised here."""
    # A new thread would pin memory by way of the first device, and open a context there.
    device = torch.cuda.current_device() if torch.cuda.is_available() else None
    start = None if device is None else functools.partial(torch.cuda.set_device, device)
    source = iter(batches)
    with ThreadPoolExecutor(1, thread_name_prefix="loader", initializer=start) as thread:
        made = thread.submit(next, source, None)
        while (batch := made.result()) is not None:
            made = thread.submit(next, source, None)
            yield batch
