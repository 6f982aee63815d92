"""Deletion of a run's old checkpoints."""

import shutil

from core.storage import Storage
from train.checkpoints.checkpoint import names, step_of
from train.checkpoints.manifest import MANIFEST

__all__ = ["prune"]


def prune(storage: Storage, step: int, *, keep_newest: int, keep_every: int) -> None:
    """Delete old checkpoints after the one of `step` was written.

    The newest `keep_newest` are kept, and those whose step is a multiple of `keep_every` (0: none).
    Checkpoints of later steps are deleted: a run that resumed from an earlier one has abandoned
    them.
    """
    past = [name for name in names(storage) if step_of(name) <= step]
    complete = [name for name in past if storage.exists(f"{name}/{MANIFEST}")]
    kept = set(complete[:keep_newest])
    kept |= {name for name in complete if keep_every and step_of(name) % keep_every == 0}
    for name in names(storage):
        if name in kept:
            continue
        # The manifest is deleted first: a partly deleted checkpoint must not look complete.
        storage.delete(f"{name}/{MANIFEST}")
        for path in storage.find_files(name):
            storage.delete(path)
        if storage.is_local:
            shutil.rmtree(storage.resolve(name), ignore_errors=True)
