"""Pruning: which checkpoints of a run are kept."""

import shutil

from core.storage import Storage
from train.checkpoints.checkpoint import names, step_of
from train.checkpoints.manifest import MANIFEST

__all__ = ["prune"]


def prune(storage: Storage, step: int, *, keep_newest: int, keep_every: int) -> None:
    """Remove the checkpoints that are not kept, once the one of a step is written.

    Kept are the newest `keep_newest`, and those whose step is a multiple of `keep_every` (0: none).
    Later steps are removed: a run that resumed from an earlier checkpoint has abandoned them.
    """
    past = [name for name in names(storage) if step_of(name) <= step]
    whole = [name for name in past if storage.exists(f"{name}/{MANIFEST}")]
    kept = set(whole[:keep_newest])
    kept |= {name for name in whole if keep_every and step_of(name) % keep_every == 0}
    for name in names(storage):
        if name in kept:
            continue
        # The manifest goes first: a half-removed checkpoint must not look whole.
        storage.delete(f"{name}/{MANIFEST}")
        for path in storage.find_files(name):
            storage.delete(path)
        if storage.is_local:
            shutil.rmtree(storage.resolve(name), ignore_errors=True)
