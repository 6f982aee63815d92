"""Checkpoints: every rank writes its shard, and a manifest written last makes it exist.

A checkpoint without a manifest, or one that does not fit its manifest, does not count: the one
before is taken. DeepSpeed's files are pickles, which is why their hashes are checked first; load
only checkpoints that your own runs wrote.
"""

import functools
import hashlib
import json
import logging
import pickle
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dataset.errors import BadInput, WorkFailed
from dataset.storage import Storage

__all__ = ["Checkpoint", "Checkpoints", "find_checkpoint"]

_log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_MODULE_FILE = "mp_rank_00_model_states.pt"
"""DeepSpeed's name; no model is split over ranks, so it is whole."""
_FORMAT = 1
_NAME = re.compile(r"^step-(\d{8})$")
_HARMLESS = frozenset(
    {
        "address",
        "checkpoint_every",
        "keep_checkpoints",
        "loader_prefetch",
        "loader_workers",
        "max_failures",
        "micro_batch",
        "num_workers",
        "out",
        "preview_every",
        "preview_size",
        "reading",
        "root",
        "steps",
        "tensorboard",
        "validate_every",
        "validation_samples",
    }
)
"""Settings that may change when a run goes on: they do not change what a step computes, but that
more steps stretch the learning-rate schedule unless `schedule_steps` fixes it."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return int(self.manifest["step"])

    def weights(self) -> dict[str, Tensor]:
        """The tensors of the trained module by name, in the precision of the run.

        Raises BadInput if its file holds anything that would run code.
        """
        path = self.folder / _MODULE_FILE
        try:
            # Everything in it is tensors and plain values: nothing needs to run.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            problem = str(error).splitlines()[0]
            raise BadInput(f"{path}: holds objects that would run code: {problem}") from None
        return dict(content["module"])


def find_checkpoint(path: Path) -> Checkpoint:
    """The newest whole checkpoint of a run's folder, or the one that the folder itself is.

    Raises BadInput if there is none.
    """
    if _NAME.match(path.name):
        manifest = _read_manifest(path)
        if manifest is not None and _is_intact(path, manifest):
            return Checkpoint(folder=path, manifest=manifest)
        raise BadInput(f"{path}: is not a whole checkpoint")
    found = Checkpoints(path, keep=1).latest()
    if found is None:
        raise BadInput(f"{path}: is no run with a whole checkpoint below checkpoints/")
    return found


class Checkpoints:
    """The checkpoints of one run, below `checkpoints/` in its output folder."""

    def __init__(self, out: Path, keep: int) -> None:
        self._folder = out / "checkpoints"
        self._keep = keep

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; torn or damaged ones are passed over, saying so."""
        for folder in self._folders(newest_first=True):
            manifest = _read_manifest(folder)
            if manifest is not None and _is_intact(folder, manifest):
                return Checkpoint(folder=folder, manifest=manifest)
            _log.warning("%s: not a whole checkpoint, trying the one before", folder)
        return None

    def check(self, config: Mapping[str, Any], world: int) -> Checkpoint | None:
        """The checkpoint that a run with this configuration would go on from.

        Raises BadInput if it was written under another configuration or number of workers, naming
        the differences.
        """
        found = self.latest()
        if found is None:
            return None
        if found.manifest["world"] != world:
            raise BadInput(
                f"{found.folder} was written by {found.manifest['world']} workers, not {world}; "
                f"go on with --num-workers {found.manifest['world']}, or give another --out"
            )
        before = found.manifest["config"]
        changed = [
            f"{key} ({before.get(key)!r} -> {config.get(key)!r})"
            for key in sorted(set(before) | set(config))
            if key not in _HARMLESS and before.get(key) != config.get(key)
        ]
        if changed:
            raise BadInput(
                f"{found.folder} was written under other settings: {'; '.join(changed)}; restore "
                "them, or give another --out"
            )
        return found

    def save(self, engine: Any, step: int, config: Mapping[str, Any]) -> None:
        """Write a checkpoint; all ranks call it. It exists when this returns on rank 0."""
        folder = self._folder / f"step-{step:08d}"
        if dist.get_rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
            self._folder.mkdir(parents=True, exist_ok=True)
        dist.barrier()
        engine.save_checkpoint(
            str(self._folder), tag=folder.name, client_state={"step": step}, save_latest=False
        )
        dist.barrier()
        if dist.get_rank() == 0:
            files = {
                str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": _hash(path)}
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            manifest: dict[str, Any] = {
                "format": _FORMAT,
                "step": step,
                "world": dist.get_world_size(),
            }
            manifest |= {"config": dict(config), "files": files}
            Storage(str(folder)).write(_MANIFEST, json.dumps(manifest, indent=1).encode())
            self._remove_old(step)
        dist.barrier()

    def load(self, engine: Any, checkpoint: Checkpoint) -> None:
        """Load this rank's shard; all ranks call it. Raises WorkFailed if it is not whole."""
        path, client = engine.load_checkpoint(
            str(self._folder), tag=checkpoint.folder.name, load_module_strict=True
        )
        if path is None or client.get("step") != checkpoint.step:
            raise WorkFailed(f"{checkpoint.folder}: DeepSpeed could not load it")

    def _folders(self, newest_first: bool) -> list[Path]:
        if not self._folder.is_dir():
            return []
        found = [path for path in self._folder.iterdir() if _NAME.match(path.name)]
        return sorted(found, reverse=newest_first)

    def _remove_old(self, step: int) -> None:
        """Remove what lies before the newest N, and what a run that went back has left behind."""
        folders = self._folders(newest_first=True)
        abandoned = [path for path in folders if _step_of(path) > step]
        past = [path for path in folders if _step_of(path) <= step]
        whole = [path for path in past if _read_manifest(path)][: self._keep]
        for folder in [*abandoned, *(path for path in past if path not in whole)]:
            # The manifest goes first: a half-removed checkpoint must not look whole.
            (folder / _MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder)


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return manifest if manifest.get("format") == _FORMAT else None


def _is_intact(folder: Path, manifest: Mapping[str, Any]) -> bool:
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            return False
        if _hash(path) != expected["sha256"]:
            return False
    return True


def _hash(path: Path) -> str:
    """A process asks more than once which checkpoint is whole, and reads each file once."""
    found = path.stat()
    return _hash_of_state(path, (found.st_ino, found.st_size, found.st_mtime_ns))


@functools.lru_cache(maxsize=4096)
def _hash_of_state(path: Path, _state: tuple[int, ...]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
