"""Saving: ranks write their files, exchange hashes and errors, and the result is published."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from core.errors import FinalFailure, WorkFailed, first_line
from train.checkpoints.checkpoint import Checkpoint, name_of
from train.checkpoints.deepspeed_state import SAVING_ERRORS, write_state
from train.checkpoints.manifest import FileEntry, Manifest, hash_file
from train.checkpoints.places import CheckpointPlaces
from train.checkpoints.pruning import prune
from train.checkpoints.publishing import Publisher, first_problem
from train.checkpoints.rank_files import save_random_state, writer_of
from train.resilience.collectives import gather
from train.settings.train_config import TrainConfig
from train.settings.versions import installed_versions

__all__ = ["CheckpointSaver"]

_log = logging.getLogger(__name__)


class CheckpointSaver:
    """Saves the checkpoints of one run; all ranks call each method at the same steps."""

    def __init__(self, config: TrainConfig, resumed: Checkpoint | None) -> None:
        """`resumed` is the checkpoint that the run resumed from, if any."""
        places = CheckpointPlaces.of(config)
        self._config, self._folder = config, places.written

        def prune_storage(step: int) -> None:
            counts = {"keep_newest": config.keep_checkpoints, "keep_every": config.keep_every}
            prune(places.storage, step, **counts)

        newest = resumed.step if resumed is not None else 0
        self._publisher = Publisher(places.storage, prune_storage, newest)
        self._failed_in_a_row = 0

    def save(self, engine: Any, step: int, extra: Mapping[str, Any]) -> int:
        """Write a checkpoint; return the step of the newest one that is stored or being uploaded.

        A failure is logged and counted, and training continues to the next one. Raises
        FinalFailure after too many failures in a row.
        """
        self._count(step, self._publisher.wait())
        name = name_of(step)
        problem = self._write(engine, name, step, extra)
        if problem:
            if dist.get_rank() == 0:
                shutil.rmtree(self._folder / name, ignore_errors=True)
            self._count(step, problem)
            return self._publisher.newest
        if not self._publisher.is_uploading:  # an upload counts when it has arrived
            self._count(step, "")
        return step

    def close(self) -> None:
        """Wait for the running upload. Raises WorkFailed if it fails."""
        problem = self._publisher.wait()
        if problem:
            raise WorkFailed(problem)

    def _count(self, step: int, problem: str | None) -> None:
        """Count a failure (a problem) or a success (empty); None is neither."""
        if problem is None:
            return
        self._failed_in_a_row = self._failed_in_a_row + 1 if problem else 0
        if problem and dist.get_rank() == 0:
            _log.error("step %d: no checkpoint: %s", step, problem)
        if self._failed_in_a_row >= self._config.max_failed_saves:
            raise FinalFailure(
                f"step {step}: {self._failed_in_a_row} checkpoints in a row could not be written: "
                f"{problem}; make room or mend the storage, then give the same command again"
            )

    def _write(self, engine: Any, name: str, step: int, extra: Mapping[str, Any]) -> str:
        """Write and publish a checkpoint; return the first problem of any rank, or empty."""
        folder, rank = self._folder / name, dist.get_rank()
        if rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
        dist.barrier()
        problems = write_state(engine, folder, step)
        try:
            save_random_state(folder, rank)
        except SAVING_ERRORS as error:
            problems.append(first_line(error))
        dist.barrier()
        own: dict[str, Path] = {}
        entries: dict[str, FileEntry] = {}
        try:
            own = {} if problems else _own_files(folder, rank)
            entries = {
                file: FileEntry(bytes=path.stat().st_size, sha256=hash_file(path))
                for file, path in own.items()
            }
        except OSError as error:
            # Raised here, it would leave the other ranks waiting.
            problems.append(first_line(error))
        shares = gather((entries, first_problem(problems)))
        problem = first_problem([problem for _, problem in shares])
        if problem:
            return problem
        manifest = Manifest(
            step=step,
            world=dist.get_world_size(),
            config=self._config.dump(),
            files={file: entry for share, _ in shares for file, entry in share.items()},
            versions=installed_versions(),
            extra=extra,
        )
        return self._publisher.publish(name, manifest, own)


def _own_files(folder: Path, rank: int) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir() if writer_of(path.name) == rank}
