"""Saving a checkpoint: ranks write their files, exchange hashes and errors, then publish."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from core.atomic import flush
from core.errors import FinalFailure, WorkFailed, first_line
from core.paths.remove_path import remove_path
from train.checkpoints.checkpoint import Checkpoint, checkpoint_name
from train.checkpoints.checkpoint_paths import CheckpointPaths
from train.checkpoints.deepspeed_state import SAVING_ERRORS, write_state
from train.checkpoints.manifest import FileEntry, Manifest, hash_file
from train.checkpoints.pruning import prune
from train.checkpoints.publishing import Publisher, first_problem
from train.checkpoints.rank_files import save_random_state, writer_of
from train.resilience.collectives import gather
from train.settings.train_config import TrainConfig
from train.settings.versions import installed_versions

__all__ = ["CheckpointSaver"]

_log = logging.getLogger(__name__)


class CheckpointSaver:
    """Writer of a run's checkpoints; all ranks call each method at the same steps."""

    def __init__(self, config: TrainConfig, resumed: Checkpoint | None) -> None:
        """Create a saver; `resumed` is the checkpoint that the run resumed from, if any."""
        paths = CheckpointPaths.of(config)
        self._config, self._folder = config, paths.write_folder
        self._is_local = paths.storage.is_local

        def prune_storage(step: int) -> None:
            counts = {"keep_newest": config.keep_checkpoints, "keep_every": config.keep_every}
            prune(paths.storage, step, **counts)

        newest = resumed.step if resumed is not None else 0
        self._publisher = Publisher(paths.storage, prune_storage, newest)
        self._consecutive_failures = 0

    def save(self, engine: Any, step: int, extra: Mapping[str, Any]) -> int:
        """Write a checkpoint; return the step of the newest one that is stored or being uploaded.

        `extra` is the state of the training loop. A failure is logged and counted, and training
        continues until the next checkpoint is due. Raises FinalFailure after `max_failed_saves`
        failures in a row.
        """
        self._count(step, self._publisher.wait())
        name = checkpoint_name(step)
        problem = self._write(engine, name, step, extra)
        if problem:
            if dist.get_rank() == 0:
                remove_path(self._folder / name, ignore_errors=True)
            self._count(step, problem)
            return self._publisher.newest
        if not self._publisher.is_uploading:  # an upload is counted when it has finished
            self._count(step, "")
        return step

    def close(self) -> None:
        """Wait for the running upload. Raises WorkFailed if it fails."""
        problem = self._publisher.wait()
        if problem:
            raise WorkFailed(problem)

    def _count(self, step: int, problem: str | None) -> None:
        """Count a failure (a message) or a success (an empty one); None counts as neither."""
        if problem is None:
            return
        self._consecutive_failures = self._consecutive_failures + 1 if problem else 0
        if problem and dist.get_rank() == 0:
            _log.error("step %d: cannot write the checkpoint: %s", step, problem)
        if self._consecutive_failures >= self._config.max_failed_saves:
            raise FinalFailure(
                f"step {step}: {self._consecutive_failures} checkpoints in a row could not be "
                f"written: {problem}; free disk space or repair the storage, then run the same "
                "command again"
            )

    def _write(self, engine: Any, name: str, step: int, extra: Mapping[str, Any]) -> str:
        """Write and publish a checkpoint; return the first error of any rank, or empty."""
        folder, rank = self._folder / name, dist.get_rank()
        if rank == 0:
            remove_path(folder, ignore_errors=True)
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
            if self._is_local:
                # Before the manifest, because older checkpoints are deleted once it is written.
                for path in (*own.values(), folder.parent, folder.parent.parent):
                    flush(path)
            entries = {
                file: FileEntry(bytes=path.stat().st_size, sha256=hash_file(path))
                for file, path in own.items()
            }
        except OSError as error:
            # Raised here, the error would leave the other ranks waiting.
            problems.append(first_line(error))
        results = gather((entries, first_problem(problems)))
        problem = first_problem([problem for _, problem in results])
        if problem:
            return problem
        manifest = Manifest(
            recipe=self._config.recipe,
            step=step,
            world_size=dist.get_world_size(),
            config=self._config.dump(),
            files={file: entry for files, _ in results for file, entry in files.items()},
            versions=installed_versions(),
            extra=extra,
        )
        return self._publisher.publish(name, manifest, own)


def _own_files(folder: Path, rank: int) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir() if writer_of(path.name) == rank}
