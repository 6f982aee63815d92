"""Deletion of a run's old checkpoints."""

from pathlib import Path

from core.paths.remove_path import remove_path
from core.storage import Storage
from train.checkpoints.checkpoint import checkpoint_names, checkpoint_step
from train.checkpoints.manifest import MANIFEST

__all__ = ["prune"]


def prune(storage: Storage, step: int, *, keep_newest: int, keep_every: int) -> None:
    """Delete old checkpoints after the one of `step` was written.

    The newest `keep_newest` are kept, and those whose step is a multiple of `keep_every` (0: none).
    Checkpoints of later steps are deleted: a run that resumed from an earlier one has abandoned
    them.
    """
    past = [name for name in checkpoint_names(storage) if checkpoint_step(name) <= step]
    complete = [name for name in past if storage.exists(f"{name}/{MANIFEST}")]
    kept = set(complete[:keep_newest])
    kept |= {name for name in complete if keep_every and checkpoint_step(name) % keep_every == 0}
    for name in checkpoint_names(storage):
        if name in kept:
            continue
        path = Path(storage.resolve(name)) if storage.is_local else None
        if path is None or not path.is_symlink():
            # First: a partly deleted checkpoint must not look complete.
            storage.delete(f"{name}/{MANIFEST}")
        if path is None:
            storage.delete(*storage.find_files(name))
        else:
            remove_path(path)
