"""Batches ahead of the step that wants them, whoever reads: processes, or one thread."""

import multiprocessing
import queue
import threading
from collections.abc import Generator, Iterable

import torch
from torch.utils.data import DataLoader, Dataset

from train.views import Item

__all__ = ["make_loader"]

_PRELOADED = ["train.data", "train.frames"]
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
    made: queue.Queue[Item | Exception | None] = queue.Queue(1)
    # A batch is begun when the one before was taken: one is in use, and one is made or ready.
    wanted = threading.Semaphore(1)
    ended = threading.Event()
    device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def make() -> None:
        try:
            if device is not None:
                torch.cuda.set_device(device)  # or pinning would open the first one as well
            source = iter(batches)
            while wanted.acquire() and not ended.is_set():
                made.put(next(source, None))
        except Exception as error:
            made.put(error)

    thread = threading.Thread(target=make, name="loader", daemon=True)
    thread.start()
    try:
        while (batch := made.get()) is not None:
            if isinstance(batch, Exception):
                raise batch
            wanted.release()
            yield batch
    finally:
        ended.set()
        wanted.release()
        thread.join()
