"""Loading of micro batches ahead of their step, in loader workers (processes) or in one thread."""

import functools
import multiprocessing
import multiprocessing.util
import re
import tempfile
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from core.errors import WorkFailed, first_line
from core.paths.scratch import ScratchFolder
from core.paths.temporary_folder import MAX_SOCKET_NAME, short_folder
from train.data.sample_dataset import Item, Reading
from train.resilience.damaged_samples import Replacement

__all__ = ["MicroBatch", "PositionDataset", "make_loader"]

_PRELOADED = ["train.data.patches", "train.data.surface_views", "train.data.whole_frames"]
"""Modules that are imported once, in the server process that loader workers are forked from."""
_SHARED_MEMORY = re.compile("shared memory|/torch_[0-9].*(No space left|Bus error)", re.DOTALL)
"""Messages of torch about shared memory, through which loader workers pass tensors."""
_KILLED_WORKER = re.compile("DataLoader worker .*(killed by signal|exited unexpectedly)")
_SOCKET = "/lrm-scratch-loader-xxxxxxxxxx/pymp-xxxxxxxx/listener-xxxxxxxx"
"""Name of a socket of `multiprocessing` in the folder of temporary files."""


class PositionDataset(Protocol):
    """A dataset that is read by position in the order, such as a `SampleDataset`."""

    def read(self, position: int) -> Reading:
        """Return the item at a position of the order, and the replacement of its sample, if any."""


class MicroBatch(NamedTuple):
    """The stacked items of a micro batch."""

    tensors: Item
    replacements: list[Replacement]
    """Replacements of its damaged samples."""


def make_loader(
    dataset: PositionDataset, positions: Iterable[list[int]], num_workers: int, prefetch: int = 2
) -> Generator[MicroBatch, None, None]:
    """Yield the micro batches at the given positions, in their order.

    Each of `num_workers` processes keeps `prefetch` micro batches ready; without processes, a
    thread keeps one ready. On CUDA the tensors are in pinned memory. The content of a batch does
    not depend on any of this. Close the iterator to end its processes or thread.
    """
    context = None
    if num_workers:
        # A plain fork would inherit the threads of gloo and DeepSpeed.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        _choose_socket_folder()
    loader = DataLoader(
        _Readings(dataset),
        collate_fn=_collate,
        batch_sampler=positions,
        num_workers=num_workers,
        multiprocessing_context=context,
        prefetch_factor=prefetch if num_workers else None,
        pin_memory=torch.cuda.is_available(),
        # The loader draws a seed for its processes. No item uses it, but without a generator of its
        # own the draw would change the run's random state.
        generator=torch.Generator(),
    )
    return _each(loader) if num_workers else _one_ahead(loader)


@functools.cache
def _choose_socket_folder() -> None:
    """Make `multiprocessing` create its sockets in a scratch folder whose name is short enough.

    The folder is inherited by all processes of this one, and removed when this process ends.
    """
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) + len(_SOCKET) > MAX_SOCKET_NAME:
        parent = short_folder() or parent
    scratch = ScratchFolder("loader", parent)
    # After the folder of `multiprocessing` in it (priority -100), which must exist until then. A
    # `weakref.finalize` may be called before, or refuse calls at that time.
    if details := scratch.removal.detach():
        _, remove, arguments, _ = details
        multiprocessing.util.Finalize(None, remove, arguments, exitpriority=-200)
    before, tempfile.tempdir = tempfile.tempdir, scratch.name
    try:
        multiprocessing.util.get_temp_dir()
    finally:
        tempfile.tempdir = before


class _Readings(Dataset[Reading]):
    """Adapter for torch's DataLoader: indexing returns what `read` returns."""

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
    """Yield the batches. Raises WorkFailed if a loader worker runs out of memory."""
    try:
        yield from batches
    except RuntimeError as error:
        text = str(error)
        if _SHARED_MEMORY.search(text):
            raise WorkFailed(
                "a loader worker has no shared memory left: enlarge /dev/shm (docker run "
                "--shm-size 8g), or give a smaller --loader-prefetch, or --loader-workers 0"
            ) from None
        if _KILLED_WORKER.search(text):
            raise WorkFailed(
                f"{first_line(error)}: it may have run out of memory; give fewer --loader-workers"
            ) from None
        raise


def _one_ahead(batches: Iterable[MicroBatch]) -> Generator[MicroBatch, None, None]:
    """Yield the batches; a thread loads the next one meanwhile. Its errors are raised here."""
    # A new thread would pin memory through the first device, and create a CUDA context there.
    device = torch.cuda.current_device() if torch.cuda.is_available() else None
    set_device = None if device is None else functools.partial(torch.cuda.set_device, device)
    source = iter(batches)
    with ThreadPoolExecutor(1, thread_name_prefix="loader", initializer=set_device) as thread:
        future = thread.submit(next, source, None)
        while (batch := future.result()) is not None:
            future = thread.submit(next, source, None)
            yield batch
