"""Finding and reading the checkpoints of a run.

A checkpoint is used only if it has a manifest and its files match it; otherwise the one before is
used. DeepSpeed's files are pickles, so their hashes are checked before they are loaded. Load only
checkpoints that your own runs wrote.
"""

import functools
import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from core.errors import BadInput
from core.paths.scratch import scratch_folder
from core.storage import Storage
from train.checkpoints.checkpoint_paths import checkpoint_storage
from train.checkpoints.manifest import Manifest, hash_file
from train.monitoring.run_file import read_run

if TYPE_CHECKING:
    # `lrm train --status` reads checkpoints without importing torch.
    from torch import Tensor

__all__ = [
    "Checkpoint",
    "cached_hash",
    "checkpoint_name",
    "checkpoint_names",
    "checkpoint_step",
    "find_checkpoint",
    "latest_checkpoint",
    "read_checkpoint",
]

_log = logging.getLogger(__name__)

_MODULE_FILE = "mp_rank_00_model_states.pt"
"""DeepSpeed's name of the file with the module's weights. Below ZeRO 3 it has all of them."""
_BLOCK_BYTES = 1 << 20
"""Bytes that are read at once while a file is hashed."""
_NAME = re.compile(r"^step-(\d{8})$")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that has a manifest."""

    storage: Storage
    """The storage of all checkpoints of the run."""
    name: str
    manifest: Manifest

    @property
    def step(self) -> int:
        """Number of optimizer steps done."""
        return self.manifest.step

    @property
    def uri(self) -> str:
        """URI of the checkpoint's folder, for messages."""
        return f"{self.storage.uri}/{self.name}"

    def is_complete(self) -> bool:
        """Return whether all files exist with the sizes in the manifest."""
        sizes = self.storage.find_files(self.name)
        files = self.manifest.files.items()
        return all(sizes.get(f"{self.name}/{name}") == entry.bytes for name, entry in files)

    def is_intact(self) -> bool:
        """Return whether all files exist with the sizes and hashes in the manifest.

        Files of an object store are not read here: their hashes are checked when they are
        downloaded.
        """
        if not self.is_complete():
            return False
        if not self.storage.is_local:
            return True
        folder = Path(self.storage.resolve(self.name))
        files = self.manifest.files.items()
        return all(cached_hash(folder / name) == entry.sha256 for name, entry in files)

    def damaged_files(self) -> list[str]:
        """Return the files that are missing or have another size or hash than in the manifest.

        Reads every file, also those of an object store. Raises the storage's errors.
        """
        return [name for name in self.manifest.files if self._is_damaged(name)]

    def _is_damaged(self, name: str) -> bool:
        entry, path = self.manifest.files[name], f"{self.name}/{name}"
        try:
            if self.storage.size(path) != entry.bytes:
                return True
            with self.storage.open(path) as file:
                return _hash_stream(file) != entry.sha256
        except FileNotFoundError:
            return True

    def weights(self) -> "dict[str, Tensor]":
        """Return the tensors of the trained module by name, in the precision of the run.

        Raises BadInput if the file contains other objects, or if no file has the whole module
        (ZeRO 3).
        """
        # `lrm train --status` reads checkpoints without importing torch.
        from train.models.weight_files.state_dicts import read_state

        if _MODULE_FILE not in self.manifest.files:
            raise BadInput(
                f"{self.uri}: ZeRO 3 has split its weights over the ranks; save a checkpoint "
                "with --zero-stage 0, 1 or 2"
            )
        with self._module_file() as path:
            return read_state(path, ("module",))

    @contextmanager
    def _module_file(self) -> Iterator[Path]:
        """Yield the path of the module file on a local disk.

        Tensors that are mapped from a temporary copy stay valid after its deletion.
        """
        if self.storage.is_local:
            yield Path(self.storage.resolve(self.name)) / _MODULE_FILE
            return
        with scratch_folder("checkpoint") as folder:
            path = Path(folder) / _MODULE_FILE
            self.storage.get(f"{self.name}/{_MODULE_FILE}", path)
            if hash_file(path) != self.manifest.files[_MODULE_FILE].sha256:
                raise BadInput(
                    f"{self.uri}: {_MODULE_FILE} is damaged: its hash differs from the manifest"
                )
            yield path


def find_checkpoint(path: Path) -> Checkpoint:
    """Return the newest intact checkpoint of a run's folder, or the checkpoint at `path` itself.

    Raises BadInput if there is none.
    """
    if _NAME.match(path.name):
        checkpoint = read_checkpoint(Storage(path.parent), path.name)
        if checkpoint is not None and checkpoint.is_intact():
            return checkpoint
        raise BadInput(f"{path}: is not an intact checkpoint")
    storage = _storage_of(path)
    newest = latest_checkpoint(storage)
    if newest is None:
        raise BadInput(f"{path}: is not a run with an intact checkpoint in {storage.uri}")
    return newest


def _storage_of(out: Path) -> Storage:
    """Return the storage of a run's checkpoints, as its last start recorded it."""
    run = read_run(out)
    return checkpoint_storage(out, run["config"].get("checkpoints") if run else None)


def latest_checkpoint(storage: Storage) -> Checkpoint | None:
    """Return the newest intact checkpoint, or None; log a warning for each damaged one."""
    for name in checkpoint_names(storage):
        checkpoint = read_checkpoint(storage, name)
        if checkpoint is not None and checkpoint.is_intact():
            return checkpoint
        _log.warning(
            "warning: %s/%s: not an intact checkpoint, trying the one before", storage.uri, name
        )
    return None


def checkpoint_names(storage: Storage) -> list[str]:
    """Return the names of all folders that are named like checkpoints, the newest first."""
    files = storage.find_files("") if storage.exists("") else {}
    folders = {path.partition("/")[0] for path in files}
    return sorted((name for name in folders if _NAME.match(name)), reverse=True)


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint of a step."""
    return f"step-{step:08d}"


def checkpoint_step(name: str) -> int:
    """Return the step in a checkpoint's name."""
    return int(name.removeprefix("step-"))


def cached_hash(path: Path) -> str:
    """Return the SHA-256 of a file; a process reads the file again only if it has changed."""
    stat = path.stat()
    return _hash_of_state(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=4096)
def _hash_of_state(path: Path, _state: tuple[int, ...]) -> str:
    return hash_file(path)


def _hash_stream(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def read_checkpoint(storage: Storage, name: str) -> Checkpoint | None:
    """Return the checkpoint of that name; None if it has no readable manifest of its step."""
    manifest = Manifest.read(storage, name)
    if manifest is None or checkpoint_name(manifest.step) != name:
        return None
    return Checkpoint(storage=storage, name=name, manifest=manifest)
