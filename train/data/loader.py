"""Batches ahead of the step that wants them, whoever reads: processes, or one thread."""

import functools
import multiprocessing
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.utils.data import DataLoader, Dataset

from train.data.step_views import Item

__all__ = ["make_loader"]

_PRELOADED = ["train.data.patches", "train.data.whole_frames"]
"""Imported once, in the process that the loader's processes are forked from."""


def make_loader(
    dataset: Dataset[Item], positions: Iterable[list[int]], num_workers: int, prefetch: int = 2
) -> Generator[Item, None, None]:
    """The given micro-batches, in their order; close the iterator to end its processes or thread.

    `num_workers` processes have `prefetch` micro-batches each ready. With none, a thread has one
    ready. On CUDA the batches lie in pinned memory. Nothing of this changes what is in a batch.
    """
    context = None
    if num_workers:
        # A plain fork would inherit the threads of gloo and DeepSpeed.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
    loader = DataLoader(
        dataset,
        batch_sampler=positions,
        num_workers=num_workers,
        multiprocessing_context=context,
        prefetch_factor=prefetch if num_workers else None,
        pin_memory=torch.cuda.is_available(),
        # It draws a seed for its processes, which no item uses: not from the run's own numbers.
        generator=torch.Generator(),
    )
    return _each(loader) if num_workers else _one_ahead(loader)


def _each(batches: Iterable[Item]) -> Generator[Item, None, None]:
    yield from batches


def _one_ahead(batches: Iterable[Item]) -> Generator[Item, None, None]:
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
