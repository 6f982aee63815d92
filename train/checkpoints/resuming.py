"""Resuming: which checkpoint a run continues from, and how every rank loads its part of it."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from core.atomic import atomic_file
from core.errors import BadInput, WorkFailed, first_line
from core.storage import storage_errors
from train.checkpoints.checkpoint import Checkpoint, cached_hash, latest
from train.checkpoints.deepspeed_state import load_state
from train.checkpoints.manifest import MANIFEST, differences
from train.checkpoints.places import CheckpointPlaces
from train.checkpoints.publishing import first_problem
from train.checkpoints.rank_files import is_needed, restore_random_state
from train.checkpoints.universal import convert
from train.resilience.collectives import gather, on_rank_0
from train.settings.train_config import TrainConfig

__all__ = ["find_resumable", "needs_conversion", "resume"]

_log = logging.getLogger(__name__)


def find_resumable(config: TrainConfig) -> Checkpoint | None:
    """Return the checkpoint that a run continues from; None if it has none.

    Raises BadInput if it was written with other settings, naming the differences.
    """
    found = latest(CheckpointPlaces.of(config).storage)
    if found is None:
        return None
    changed = differences(found.manifest.config, config.dump(), config.accept_changes)
    if changed:
        named = ", ".join(sorted(change.partition(" ")[0] for change in changed))
        raise BadInput(
            f"{found.where} was written under other settings: {'; '.join(changed)}; restore "
            f"them, give another --out, or accept them: --accept-changes '[{named}]'"
        )
    return found


def needs_conversion(found: Checkpoint) -> bool:
    """Return whether its optimizer state is split over another number of ranks than there are."""
    is_split = any("optim_states" in name for name in found.manifest.files)
    return is_split and found.manifest.world != dist.get_world_size()


def resume(engine: Any, found: Checkpoint, config: TrainConfig) -> None:
    """Load this rank's part of a checkpoint into DeepSpeed's engine; all ranks call it.

    If `needs_conversion`, the engine must be set up for a universal checkpoint. Raises WorkFailed
    if the checkpoint is damaged.
    """
    places = CheckpointPlaces.of(config)
    is_converted = needs_conversion(found)
    folder = _fetch(found, places, everything=is_converted)
    if is_converted:
        folder = on_rank_0(lambda: _convert(folder, places.loading / f"universal-{folder.name}"))
    if load_state(engine, folder) != found.step:
        raise WorkFailed(f"{found.where}: DeepSpeed could not load it")
    if found.manifest.world == dist.get_world_size():
        restore_random_state(folder, dist.get_rank())
    dist.barrier()
    # Every rank, since each node may have its own.
    shutil.rmtree(places.loading, ignore_errors=True)


def _fetch(found: Checkpoint, places: CheckpointPlaces, *, everything: bool) -> Path:
    """Return a folder with the files that this rank needs; all ranks check hashes."""
    rank, world = dist.get_rank(), dist.get_world_size()
    files = found.manifest.files
    if places.storage.is_local:
        folder = Path(places.storage.resolve(found.name))
        # All files are checked, divided among the ranks.
        checked = sorted(files)[rank::world]
    else:
        folder = places.loading / found.name
        folder.mkdir(parents=True, exist_ok=True)
        reads_all = everything and rank == 0
        checked = sorted(name for name in files if reads_all or is_needed(name, rank))
    # A rank that raised here would leave the others waiting.
    damaged = problem = ""
    try:
        damaged = _first_damaged(found, folder, checked, download=not places.storage.is_local)
    except storage_errors() as error:
        problem = first_line(error)
    shares = gather((damaged, problem))
    first = first_problem([damaged for damaged, _ in shares])
    problem = first_problem([problem for _, problem in shares])
    if problem and not first:
        raise WorkFailed(f"{found.where}: cannot read the checkpoint: {problem}")
    if first:
        if rank == 0:
            # The next start takes the checkpoint before this one.
            found.storage.delete(f"{found.name}/{MANIFEST}")
        dist.barrier()
        raise WorkFailed(
            f"{found.where}: {first} is not what was written; the same command goes on from "
            "the checkpoint before"
        )
    return folder


def _first_damaged(found: Checkpoint, folder: Path, names: Sequence[str], *, download: bool) -> str:
    """Return the first of these files that is missing or not what was written; empty if none is.

    Raises an error of the storage if it cannot be asked.
    """
    for name in names:
        try:
            if download:
                _download(found, name, folder / name)
            if cached_hash(folder / name) != found.manifest.files[name].sha256:
                return name
        except FileNotFoundError:
            return name
    return ""


def _download(found: Checkpoint, name: str, target: Path) -> None:
    """Download a file, unless another rank of this node has done so.

    A file with another hash is downloaded once more: the transfer may have been cut off.
    """
    for _ in range(2):
        if target.exists() and cached_hash(target) == found.manifest.files[name].sha256:
            return
        with atomic_file(target, sync=False) as part:
            found.storage.get(f"{found.name}/{name}", part)


def _convert(folder: Path, target: Path) -> Path:
    """Convert a checkpoint to DeepSpeed's universal form, in a folder that all ranks see."""
    _log.warning("%s: made fit for %d workers", folder, dist.get_world_size())
    try:
        convert(folder, target)
    except OSError as error:
        raise WorkFailed(str(error)) from None
    return target
