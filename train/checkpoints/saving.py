"""Saving and loading: every rank writes its share, and a manifest written last makes it count."""

import logging
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from core.errors import BadInput, FinalFailure, WorkFailed
from core.storage import Storage
from train.checkpoints.checkpoint import (
    Checkpoint,
    cached_hash,
    latest,
    names,
    step_of,
)
from train.checkpoints.manifest import MANIFEST, FileEntry, Manifest, differences, hash_file
from train.checkpoints.universal import UNIVERSAL_INFO, convert
from train.checkpoints.uploads import Upload
from train.settings.train_config import TrainConfig
from train.settings.versions import installed_versions

__all__ = ["Checkpoints"]

_log = logging.getLogger(__name__)

_RANK = re.compile(r"(?:pp_rank_|random-)(\d+)")
T = TypeVar("T")
_LOOK_SECONDS = 1.0
_SAVING_ERRORS = (OSError, RuntimeError)
"""What torch.save raises on a full or failing disk."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._storage = Storage(config.checkpoints or f"{config.out}/checkpoints")
        own = Path(config.out) / "checkpoints-in-transit"
        self._local = Path(self._storage.resolve("")) if self._storage.is_local else own
        self._loading = self._local / ".loading"
        self._upload: tuple[int, Upload] | None = None
        """The step of the checkpoint on its way."""
        self._failed_in_a_row = 0
        self._newest = 0

    def check(self) -> Checkpoint | None:
        """The checkpoint that the run would go on from.

        Raises BadInput if it was written under another configuration, naming the differences.
        """
        found = latest(self._storage)
        if found is None:
            return None
        config = self._config
        changed = differences(found.manifest.config, config.dump(), config.accept_changes)
        if changed:
            named = ", ".join(sorted(change.partition(" ")[0] for change in changed))
            raise BadInput(
                f"{found.where} was written under other settings: {'; '.join(changed)}; restore "
                f"them, give another --out, or accept them: --accept-changes '[{named}]'"
            )
        return found

    def needs_conversion(self, found: Checkpoint) -> bool:
        """Whether its shares are of another number of workers than there are now."""
        shared = any("optim_states" in name for name in found.manifest.files)
        return shared and found.manifest.world != dist.get_world_size()

    def load(self, engine: Any, found: Checkpoint) -> None:
        """Load this rank's share; all ranks call it, with DeepSpeed set up for a universal
        checkpoint if `needs_conversion`. Raises WorkFailed if it is not whole.
        """
        universal = self.needs_conversion(found)
        folder = self._fetch(found, everything=universal)
        if universal:
            folder = self._convert(folder)
        before = _hyperparameters(engine)
        path, client = engine.load_checkpoint(
            str(folder.parent), tag=folder.name, load_module_strict=True
        )
        if path is None or client.get("step") != found.step:
            raise WorkFailed(f"{found.where}: DeepSpeed could not load it")
        _restore_hyperparameters(engine, before)
        if found.manifest.world == dist.get_world_size():
            _restore_random_state(folder)
        dist.barrier()
        self._newest = found.step
        # Every rank, since each node may have its own.
        shutil.rmtree(self._loading, ignore_errors=True)

    def save(self, engine: Any, step: int, extra: Mapping[str, Any]) -> int:
        """Write a checkpoint; all ranks call it. The step of the newest one that is there or on
        its way.

        A failure is said and counted, and training goes on to the next one. Raises FinalFailure
        after too many in a row.
        """
        self._count(step, self._await_upload())
        name = f"step-{step:08d}"
        problem = _first(_gathered(self._write(engine, name, step, extra)))
        if problem and dist.get_rank() == 0:
            shutil.rmtree(self._local / name, ignore_errors=True)
        # What is on its way counts when it has arrived.
        self._count(step, problem if problem or self._upload is None else None)
        if problem:
            return self._newest
        if self._upload is None:
            self._newest = step
        return step

    def close(self) -> None:
        """Wait for what is on its way; all ranks call it. Raises WorkFailed if it fails."""
        problem = self._await_upload()
        if problem:
            raise WorkFailed(problem)

    def _count(self, step: int, problem: str | None) -> None:
        """A checkpoint failed with a problem, or arrived (empty), or there is no news (None)."""
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

    def _await_upload(self) -> str | None:
        """What became of the checkpoint on its way, the same on all ranks: a problem, or empty.

        None if there is none. Ranks take different times: none waits in a collective meanwhile.
        """
        if self._upload is None:
            return None
        (step, upload), self._upload = self._upload, None
        while True:
            over = upload.is_over
            states = _gathered((over, upload.problem))
            problem = _first(problem for _, problem in states)
            if problem:
                upload.give_up()
                return problem
            if all(over for over, _ in states):
                self._newest = step
                return ""
            time.sleep(_LOOK_SECONDS)

    def _write(self, engine: Any, name: str, step: int, extra: Mapping[str, Any]) -> str:
        """What went wrong on this rank; empty if nothing did."""
        folder, rank = self._local / name, dist.get_rank()
        if rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
        dist.barrier()
        with _catching(engine) as problems:
            state = {"step": step, **UNIVERSAL_INFO}
            engine.save_checkpoint(
                str(self._local), tag=name, client_state=state, save_latest=False
            )
        try:
            torch.save(_random_state(), folder / f"random-{rank:05d}.pt")
        except _SAVING_ERRORS as error:
            problems.append(str(error))
        dist.barrier()
        own = (
            {}
            if problems
            else {path.name: path for path in folder.iterdir() if _owner(path) == rank}
        )
        entries = {
            file: FileEntry(bytes=path.stat().st_size, sha256=hash_file(path))
            for file, path in own.items()
        }
        shares = _gathered((entries, problems[:1]))
        bad = [found[0] for _, found in shares if found]
        if bad:
            return str(bad[0])
        files = {file: entry for share, _ in shares for file, entry in share.items()}
        manifest = Manifest(
            step=step,
            world=dist.get_world_size(),
            config=self._config.dump(),
            files=files,
            versions=installed_versions(),
            extra=extra,
        )
        return self._publish(name, manifest, own)

    def _publish(self, name: str, manifest: Manifest, own: Mapping[str, Path]) -> str:
        def finish() -> None:
            self._storage.write(f"{name}/{MANIFEST}", manifest.to_json())
            self._remove_old(manifest.step)

        last = finish if dist.get_rank() == 0 else None
        if not self._storage.is_local:
            sizes = {file: entry.bytes for file, entry in manifest.files.items()}
            self._upload = manifest.step, Upload(self._storage, name, own, last, sizes)
            return ""
        try:
            if last is not None:
                last()
        except OSError as error:
            return str(error)
        return ""

    def _fetch(self, found: Checkpoint, *, everything: bool) -> Path:
        """A folder with the files that this rank needs, their hashes checked."""
        rank, world = dist.get_rank(), dist.get_world_size()
        files = found.manifest.files
        folder = Path(found.storage.resolve(found.name))
        if self._storage.is_local:
            # All files are checked, shared out over the ranks.
            mine = [name for i, name in enumerate(sorted(files)) if i % world == rank]
        else:
            folder = self._loading / found.name
            folder.mkdir(parents=True, exist_ok=True)
            needed = {name for name in files if _needs(name, rank) or (everything and rank == 0)}
            mine = sorted(needed)
            for name in mine:
                self._download(found, name, folder / name)
        bad = [name for name in mine if cached_hash(folder / name) != files[name].sha256]
        first = _first(names[0] for names in _gathered(bad) if names)
        if first:
            if rank == 0:
                found.storage.delete(f"{found.name}/{MANIFEST}")
            dist.barrier()
            raise WorkFailed(
                f"{found.where}: {first} is not what was written; the same command goes on from "
                "the checkpoint before"
            )
        return folder

    def _download(self, found: Checkpoint, name: str, target: Path) -> None:
        """Get a file unless it is there: other ranks of this node may want it, too. One that is
        not what was written may have been cut off on its way, and is asked for once more."""
        for _ in range(2):
            if target.exists() and cached_hash(target) == found.manifest.files[name].sha256:
                return
            part = target.with_name(f".{dist.get_rank()}-{name}")
            found.storage.get(f"{found.name}/{name}", part)
            part.replace(target)

    def _convert(self, folder: Path) -> Path:
        """The universal form, made by rank 0 where all ranks see it."""
        target = self._loading / f"universal-{folder.name}"
        problem = [""]
        if dist.get_rank() == 0:
            _log.warning("%s: made fit for %d workers", folder, dist.get_world_size())
            try:
                convert(folder, target)
            except (WorkFailed, OSError) as error:
                problem[0] = str(error)
        dist.broadcast_object_list(problem)
        if problem[0]:
            raise WorkFailed(problem[0])
        return target

    def _remove_old(self, step: int) -> None:
        """Remove all but the newest N and every M-th, and what a run that went back left behind."""
        every = self._config.keep_every
        past = [name for name in names(self._storage) if step_of(name) <= step]
        whole = [name for name in past if self._storage.exists(f"{name}/{MANIFEST}")]
        kept = set(whole[: self._config.keep_checkpoints])
        kept |= {name for name in whole if every and step_of(name) % every == 0}
        for name in names(self._storage):
            if name in kept:
                continue
            # The manifest goes first: a half-removed checkpoint must not look whole.
            self._storage.delete(f"{name}/{MANIFEST}")
            for path in self._storage.find_files(name):
                self._storage.delete(path)
            if self._storage.is_local:
                shutil.rmtree(self._storage.resolve(name), ignore_errors=True)


def _gathered(own: T) -> list[T]:
    """What each rank has, by rank; all ranks call it."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found


def _first(problems: Iterable[str]) -> str:
    """The first that says something; empty if none does."""
    return next(filter(None, problems), "")


def _owner(path: Path) -> int:
    """The rank that wrote a file."""
    found = _RANK.search(path.name)
    return int(found[1]) if found else 0


def _needs(name: str, rank: int) -> bool:
    """Whether a rank reads a file of a checkpoint of its own number of workers."""
    return _RANK.search(name) is None or _owner(Path(name)) == rank


@contextmanager
def _catching(engine: Any) -> Iterator[list[str]]:
    """While the block runs, DeepSpeed's writes note their errors instead of raising them: a rank
    that left early would leave the others waiting."""
    problems: list[str] = []
    writer, write = engine.checkpoint_engine, engine.checkpoint_engine.save

    def note(*arguments: Any, **options: Any) -> None:
        try:
            write(*arguments, **options)
        except _SAVING_ERRORS as error:
            problems.append(str(error).splitlines()[0])

    writer.save = note
    try:
        yield problems
    finally:
        del writer.save


def _hyperparameters(engine: Any) -> list[dict[str, Any]]:
    groups = engine.optimizer.param_groups
    return [{k: v for k, v in group.items() if k != "params"} for group in groups]


def _restore_hyperparameters(engine: Any, groups: list[dict[str, Any]]) -> None:
    """ZeRO 3 (0.19) loads those of the first group into all, and one `step` tensor for all."""
    for group, values in zip(engine.optimizer.param_groups, groups, strict=True):
        group.update(values)
    states = getattr(getattr(engine.optimizer, "optimizer", engine.optimizer), "state", {})
    for state in states.values():
        if torch.is_tensor(state.get("step")):
            state["step"] = state["step"].clone()


def _random_state() -> dict[str, torch.Tensor]:
    found = {"cpu": torch.get_rng_state()}
    return found | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _restore_random_state(folder: Path) -> None:
    state = torch.load(folder / f"random-{dist.get_rank():05d}.pt", weights_only=True)
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
