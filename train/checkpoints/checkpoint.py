"""What a checkpoint is, and which one counts.

A checkpoint without a manifest, or one that does not fit its manifest, does not count: the one
before is taken. DeepSpeed's files are pickles, which is why their hashes are checked first; load
only checkpoints that your own runs wrote.
"""

import contextlib
import functools
import json
import logging
import pickle
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import BadInput
from core.storage import Storage
from train.checkpoints.manifest import Manifest, hash_file
from train.checkpoints.places import checkpoint_storage
from train.monitoring.run_log import RUN_FILE

if TYPE_CHECKING:
    # `lrm train --status` reads checkpoints without importing torch.
    from torch import Tensor

__all__ = [
    "Checkpoint",
    "cached_hash",
    "find_checkpoint",
    "latest",
    "name_of",
    "names",
    "read_checkpoint",
    "step_of",
]

_log = logging.getLogger(__name__)

_MODULE_FILE = "mp_rank_00_model_states.pt"
"""DeepSpeed's name; no model is split over ranks below ZeRO 3, so it is whole."""
_NAME = re.compile(r"^step-(\d{8})$")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint with a manifest."""

    storage: Storage
    """Of all checkpoints of the run."""
    name: str
    manifest: Manifest

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self.manifest.step

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.storage.uri}/{self.name}"

    def is_complete(self) -> bool:
        """Whether all files are there in the right size."""
        there = self.storage.find_files(self.name)
        files = self.manifest.files.items()
        return all(there.get(f"{self.name}/{name}") == entry.bytes for name, entry in files)

    def is_intact(self) -> bool:
        """Whether all files are there with the right content; reads all of a local checkpoint."""
        if not self.is_complete():
            return False
        if not self.storage.is_local:
            return True  # what is fetched is checked when it is fetched
        folder = Path(self.storage.resolve(self.name))
        files = self.manifest.files.items()
        return all(cached_hash(folder / name) == entry.sha256 for name, entry in files)

    def weights(self) -> "dict[str, Tensor]":
        """The tensors of the trained module by name, in the precision of the run.

        Raises BadInput if its file holds anything that would run code, or none holds the whole
        module (ZeRO 3).
        """
        import torch

        if _MODULE_FILE not in self.manifest.files:
            raise BadInput(
                f"{self.where}: ZeRO 3 has split its weights; save a checkpoint at stage 0 to 2"
            )
        with self._module_file() as path:
            try:
                # Everything in it is tensors and plain values: nothing needs to run.
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except pickle.UnpicklingError as error:
                problem = str(error).splitlines()[0]
                raise BadInput(f"{path}: holds objects that would run code: {problem}") from None
        return dict(content["module"])

    @contextmanager
    def _module_file(self) -> Iterator[Path]:
        """On local disk; what is mapped from it stays when it goes."""
        if self.storage.is_local:
            yield Path(self.storage.resolve(self.name)) / _MODULE_FILE
            return
        with tempfile.TemporaryDirectory(prefix="lrm-") as folder:
            path = Path(folder) / _MODULE_FILE
            self.storage.get(f"{self.name}/{_MODULE_FILE}", path)
            if hash_file(path) != self.manifest.files[_MODULE_FILE].sha256:
                raise BadInput(f"{self.where}: {_MODULE_FILE} is not what was written")
            yield path


def find_checkpoint(path: Path) -> Checkpoint:
    """The newest whole checkpoint of a run's folder, or the one that the folder itself is.

    Raises BadInput if there is none.
    """
    if _NAME.match(path.name):
        found = read_checkpoint(Storage(str(path.parent)), path.name)
        if found is not None and found.is_intact():
            return found
        raise BadInput(f"{path}: is not a whole checkpoint")
    storage = _storage_of(path)
    newest = latest(storage)
    if newest is None:
        raise BadInput(f"{path}: is no run with a whole checkpoint in {storage.uri}")
    return newest


def _storage_of(out: Path) -> Storage:
    """Return the storage of a run's checkpoints, as its last start recorded it."""
    elsewhere = None
    with contextlib.suppress(OSError, ValueError, KeyError):
        elsewhere = json.loads((out / RUN_FILE).read_bytes())["config"]["checkpoints"]
    return checkpoint_storage(out, elsewhere)


def latest(storage: Storage) -> Checkpoint | None:
    """The newest checkpoint that is whole; torn or damaged ones are passed over, saying so."""
    for name in names(storage):
        found = read_checkpoint(storage, name)
        if found is not None and found.is_intact():
            return found
        _log.warning("%s/%s: not a whole checkpoint, trying the one before", storage.uri, name)
    return None


def names(storage: Storage) -> list[str]:
    """The names of all folders that may be checkpoints, the newest first."""
    files = storage.find_files("") if storage.exists("") else {}
    found = {path.partition("/")[0] for path in files}
    return sorted((name for name in found if _NAME.match(name)), reverse=True)


def name_of(step: int) -> str:
    """Return the name of the checkpoint of a step."""
    return f"step-{step:08d}"


def step_of(name: str) -> int:
    """Return the step in a checkpoint's name."""
    return int(name.removeprefix("step-"))


def cached_hash(path: Path) -> str:
    """Return the SHA-256 of a file; a process reads it again only if it changed."""
    found = path.stat()
    return _hash_of_state(path, (found.st_ino, found.st_size, found.st_mtime_ns))


@functools.lru_cache(maxsize=4096)
def _hash_of_state(path: Path, _state: tuple[int, ...]) -> str:
    return hash_file(path)


def read_checkpoint(storage: Storage, name: str) -> Checkpoint | None:
    """The checkpoint of that name; None if there is none with a whole manifest."""
    manifest = Manifest.read(storage, name)
    return None if manifest is None else Checkpoint(storage=storage, name=name, manifest=manifest)
