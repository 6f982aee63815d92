"""Resuming a run: finding its checkpoint, and loading each rank's part of it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from core.atomic import atomic_file
from core.errors import BadInput, WorkFailed, first_line
from core.paths.remove_path import remove_path
from core.storage import Storage, storage_errors
from train.checkpoints.checkpoint import (
    Checkpoint,
    cached_hash,
    checkpoint_names,
    checkpoint_step,
    latest_checkpoint,
)
from train.checkpoints.checkpoint_paths import CheckpointPaths
from train.checkpoints.deepspeed_state import load_state
from train.checkpoints.manifest import MANIFEST, differences
from train.checkpoints.publishing import first_problem
from train.checkpoints.rank_files import is_needed, restore_random_state
from train.checkpoints.universal import convert
from train.monitoring.metrics_log import last_metrics
from train.monitoring.run_file import known_run
from train.resilience.collectives import gather, on_rank_0
from train.settings.train_config import TrainConfig

__all__ = ["find_resumable", "needs_conversion", "resume"]

_log = logging.getLogger(__name__)

_DAMAGED_MANIFEST = "manifest-of-damaged.json"
"""Copy of the manifest of a checkpoint that was found damaged when it was loaded."""


def find_resumable(config: TrainConfig) -> Checkpoint | None:
    """Return the checkpoint that a run resumes from; None if it has none.

    Raises BadInput if it was written with other settings, naming the differences, or if the run has
    had checkpoints and none of them is intact.
    """
    storage = CheckpointPaths.of(config).storage
    checkpoint = latest_checkpoint(storage)
    if checkpoint is None:
        _check_nothing_is_lost(config, storage)
        return None
    accepted = [name for name in config.accept_changes if not _is_fixed(name, config)]
    changed = differences(checkpoint.manifest.config, config.dump(), accepted, config.renamed)
    if changed:
        settings = sorted(change.partition(" ")[0] for change in changed)
        remedy = "restore them or give another --out"
        if not any(_is_fixed(name, config) for name in settings):
            remedy += f", or accept them: --accept-changes '[{', '.join(settings)}]'"
        raise BadInput(
            f"{checkpoint.uri} was written with other settings: {'; '.join(changed)}; {remedy}"
        )
    return checkpoint


def _is_fixed(name: str, config: TrainConfig) -> bool:
    return name.partition(".")[0] in config.fixed


def _check_nothing_is_lost(config: TrainConfig, storage: Storage) -> None:
    """Raise BadInput if a run without an intact checkpoint has had one: it would begin anew.

    A run that was killed before its first checkpoint was complete has none, and does begin anew.
    """
    run, last = known_run(Path(config.out)), last_metrics(Path(config.out))
    last_step = last["step"] if last else 0
    damaged = [
        name
        for name in checkpoint_names(storage)
        if any(storage.exists(f"{name}/{file}") for file in (MANIFEST, _DAMAGED_MANIFEST))
        # On a local disk the log goes on only after a save, which removes the folder if it fails.
        or (storage.is_local and last_step > checkpoint_step(name))
    ]
    resumed = run["first_step"] if run else 0
    # Each save on a local disk creates the folder.
    is_gone = storage.is_local and not storage.exists("")
    every = run["config"].get("checkpoint_every") if run else None
    was_saved = every is not None and every < last_step
    if damaged:
        problem = f"none of its checkpoints is intact ({', '.join(damaged)})"
    elif resumed or (is_gone and was_saved):
        problem = f"its checkpoints are missing ({storage.uri})"
    else:
        if last_step:
            _log.warning(
                "--out %s: begins at step 1, because no checkpoint is there; its log ended at "
                "step %d",
                *(config.out, last_step),
            )
        return
    raise BadInput(
        f"--out {config.out}: {problem}, so the run would begin at step 1; restore them, or give "
        "another --out for a new run"
    )


def needs_conversion(checkpoint: Checkpoint) -> bool:
    """Return whether the optimizer state is split over another number of ranks than this run's."""
    is_split = any("optim_states" in name for name in checkpoint.manifest.files)
    return is_split and checkpoint.manifest.world_size != dist.get_world_size()


def resume(engine: Any, checkpoint: Checkpoint, config: TrainConfig) -> None:
    """Load this rank's part of a checkpoint into DeepSpeed's engine; all ranks call it.

    If `needs_conversion`, the engine must be set up for a universal checkpoint. Raises WorkFailed
    if the checkpoint is damaged.
    """
    paths = CheckpointPaths.of(config)
    is_converted = needs_conversion(checkpoint)
    folder = _fetch(checkpoint, paths, everything=is_converted)
    if is_converted:
        folder = on_rank_0(lambda: _convert(folder, paths.load_folder / f"universal-{folder.name}"))
    if load_state(engine, folder) != checkpoint.step:
        raise WorkFailed(
            f"{checkpoint.uri}: DeepSpeed could not load the checkpoint; its log has the cause"
        )
    if checkpoint.manifest.world_size == dist.get_world_size():
        restore_random_state(folder, dist.get_rank())
    dist.barrier()
    # On every rank, because each node may have its own folder.
    remove_path(paths.load_folder, ignore_errors=True)


def _fetch(checkpoint: Checkpoint, paths: CheckpointPaths, *, everything: bool) -> Path:
    """Return a folder with the files that this rank needs; all ranks check hashes."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    files = checkpoint.manifest.files
    if paths.storage.is_local:
        folder = Path(paths.storage.resolve(checkpoint.name))
        # All files are checked, divided among the ranks.
        names = sorted(files)[rank::world_size]
    else:
        folder = paths.load_folder / checkpoint.name
        folder.mkdir(parents=True, exist_ok=True)
        reads_all = everything and rank == 0
        names = sorted(name for name in files if reads_all or is_needed(name, rank))
    # Errors are gathered first: a rank that raised here would leave the others waiting.
    damaged = problem = ""
    try:
        damaged = _first_damaged(checkpoint, folder, names, download=not paths.storage.is_local)
    except storage_errors() as error:
        problem = first_line(error)
    results = gather((damaged, problem))
    damaged = first_problem([name for name, _ in results])
    problem = first_problem([problem for _, problem in results])
    if problem and not damaged:
        raise WorkFailed(f"{checkpoint.uri}: cannot read the checkpoint: {problem}")
    if damaged:
        if rank == 0:
            # Without its manifest, the next start uses the checkpoint before this one; the copy
            # tells a start without any other one that the run had a checkpoint.
            content = checkpoint.manifest.to_json()
            checkpoint.storage.write(f"{checkpoint.name}/{_DAMAGED_MANIFEST}", content)
            checkpoint.storage.delete(f"{checkpoint.name}/{MANIFEST}")
        dist.barrier()
        raise WorkFailed(
            f"{checkpoint.uri}: {damaged} is missing or damaged; run the same command again to "
            "resume from the checkpoint before"
        )
    return folder


def _first_damaged(
    checkpoint: Checkpoint, folder: Path, names: Sequence[str], *, download: bool
) -> str:
    """Return the first of these files that is missing or has another hash; empty if none is.

    Raises the storage's error if a download fails.
    """
    for name in names:
        try:
            if download:
                _download(checkpoint, name, folder / name)
            if cached_hash(folder / name) != checkpoint.manifest.files[name].sha256:
                return name
        except FileNotFoundError:
            return name
    return ""


def _download(checkpoint: Checkpoint, name: str, target: Path) -> None:
    """Download a file, unless another rank of this node has done so.

    A file with another hash is downloaded once more: the transfer may have been cut off.
    """
    for _ in range(2):
        if target.exists() and cached_hash(target) == checkpoint.manifest.files[name].sha256:
            return
        with atomic_file(target, sync=False) as part:
            checkpoint.storage.get(f"{checkpoint.name}/{name}", part)


def _convert(folder: Path, target: Path) -> Path:
    """Convert a checkpoint to DeepSpeed's universal form, in a folder that all ranks see."""
    _log.warning("%s: converting the checkpoint for %d workers", folder, dist.get_world_size())
    try:
        convert(folder, target)
    except OSError as error:
        raise WorkFailed(str(error)) from None
    return target
