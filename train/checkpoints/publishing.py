"""Two-phase publication of a checkpoint: the files of all ranks first, the manifest last.

A checkpoint is valid once its manifest exists. A crash between the phases leaves a folder without a
manifest, which readers ignore.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch.distributed as dist

from core.errors import first_line
from core.storage import Storage, storage_errors
from train.checkpoints.manifest import MANIFEST, Manifest
from train.checkpoints.uploads import Upload
from train.resilience.collectives import gather

__all__ = ["Publisher", "first_problem"]

_log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
"""Seconds between two checks of a running upload."""


class Publisher:
    """Publisher of a run's checkpoints, one at a time; all ranks call each method.

    On a local storage the files are already in place, and rank 0 writes the manifest at once. For
    an object store, each rank uploads its files in a thread while training continues; rank 0
    writes the manifest when the files of all ranks have arrived.
    """

    def __init__(self, storage: Storage, prune: Callable[[int], None], newest: int) -> None:
        """Create a publisher; `newest` is the step that the run resumed from, or 0.

        `prune` is called with the step of each published checkpoint and deletes older ones.
        """
        self._storage, self._prune = storage, prune
        self.newest = newest
        """Step of the newest published checkpoint."""
        self._upload: tuple[int, Upload] | None = None
        """The step of the running upload, and the upload."""

    @property
    def is_uploading(self) -> bool:
        """Whether a checkpoint is being uploaded."""
        return self._upload is not None

    def publish(self, name: str, manifest: Manifest, own: Mapping[str, Path]) -> str:
        """Publish a checkpoint, or start its upload; `own` are the files of this rank, by name.

        Returns the first error of any rank; empty if there is none.
        """

        def finish() -> None:
            self._storage.write(f"{name}/{MANIFEST}", manifest.to_json())
            try:
                self._prune(manifest.step)
            except storage_errors() as error:
                # The checkpoint itself is stored; the next pruning deletes what is left.
                _log.warning(
                    "%s: cannot delete old checkpoints, the next save tries again: %s",
                    *(self._storage.uri, first_line(error)),
                )

        finish_here = finish if dist.get_rank() == 0 else None
        if not self._storage.is_local:
            sizes = {file: entry.bytes for file, entry in manifest.files.items()}
            self._upload = manifest.step, Upload(self._storage, name, own, finish_here, sizes)
            return ""
        problem = ""
        try:
            if finish_here is not None:
                finish_here()
        except OSError as error:
            problem = str(error)
        problem = first_problem(gather(problem))
        if not problem:
            self.newest = manifest.step
        return problem

    def wait(self) -> str | None:
        """Wait for the running upload; return its first error, empty if there is none.

        Returns None if no upload is running. All ranks return the same.
        """
        if self._upload is None:
            return None
        (step, upload), self._upload = self._upload, None
        # Ranks finish at different times, and a collective has a timeout, so all poll together.
        while True:
            is_finished = upload.is_finished
            states = gather((is_finished, upload.problem))
            problem = first_problem([problem for _, problem in states])
            if problem:
                upload.cancel()
                return problem
            if all(is_finished for is_finished, _ in states):
                self.newest = step
                return ""
            time.sleep(_POLL_SECONDS)


def first_problem(problems: list[str]) -> str:
    """Return the first problem that is not empty; empty if there is none."""
    return next(filter(None, problems), "")
