"""Publishing: a checkpoint counts once its manifest is there, and the manifest is written last.

The first phase puts the files of all ranks into the storage, the second one the manifest. A crash
in between leaves a folder without a manifest, which no reader takes for a checkpoint.
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


class Publisher:
    """Publishes the checkpoints of a run, one at a time; all ranks call each method.

    On a local storage the files are in place already, and rank 0 writes the manifest at once. For
    an object store, each rank uploads its files in a thread while training continues; rank 0
    writes the manifest when the files of all ranks have arrived.
    """

    def __init__(self, storage: Storage, prune: Callable[[int], None], newest: int) -> None:
        """`prune` removes old checkpoints, given the step of the published one.

        `newest` is the step that the run resumed from, or 0.
        """
        self._storage, self._prune = storage, prune
        self.newest = newest
        """Step of the newest published checkpoint."""
        self._upload: tuple[int, Upload] | None = None
        """The running upload and its step."""

    @property
    def is_uploading(self) -> bool:
        """Whether a checkpoint is being uploaded."""
        return self._upload is not None

    def publish(self, name: str, manifest: Manifest, own: Mapping[str, Path]) -> str:
        """Publish a checkpoint, of which this rank has its own files, or start its upload.

        Returns what went wrong on any rank; empty if nothing did.
        """

        def finish() -> None:
            self._storage.write(f"{name}/{MANIFEST}", manifest.to_json())
            try:
                self._prune(manifest.step)
            except storage_errors() as error:
                # The checkpoint is there; the next one removes what is left.
                _log.warning("old checkpoints are not removed: %s", first_line(error))

        last = finish if dist.get_rank() == 0 else None
        if not self._storage.is_local:
            sizes = {file: entry.bytes for file, entry in manifest.files.items()}
            self._upload = manifest.step, Upload(self._storage, name, own, last, sizes)
            return ""
        problem = ""
        try:
            if last is not None:
                last()
        except OSError as error:
            problem = str(error)
        problem = first_problem(gather(problem))
        if not problem:
            self.newest = manifest.step
        return problem

    def wait(self) -> str | None:
        """Wait for the running upload; return what went wrong, empty if nothing did.

        None if there is no upload. All ranks return the same.
        """
        if self._upload is None:
            return None
        (step, upload), self._upload = self._upload, None
        # Ranks take different times, and a collective has a timeout: all poll together.
        while True:
            is_over = upload.is_over
            states = gather((is_over, upload.problem))
            problem = first_problem([problem for _, problem in states])
            if problem:
                upload.give_up()
                return problem
            if all(is_over for is_over, _ in states):
                self.newest = step
                return ""
            time.sleep(_POLL_SECONDS)


def first_problem(problems: list[str]) -> str:
    """Return the first problem that is not empty; empty if there is none."""
    return next(filter(None, problems), "")
