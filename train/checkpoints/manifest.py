"""What makes a checkpoint exist: a manifest of its files, written last."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import digest
from core.errors import BadInput, WorkFailed
from core.storage import Storage, storage_errors

__all__ = ["FORMAT", "MANIFEST", "FileEntry", "Manifest", "differences", "hash_file"]

MANIFEST = "manifest.json"
FORMAT = 2
_HARMLESS = frozenset(
    {
        "accept_changes",
        "activation_checkpointing",
        "address",
        "check_memory",
        "checkpoint_every",
        "checkpoints",
        "data_faults",
        "guard.max_bad_steps",
        "keep_checkpoints",
        "keep_every",
        "latent_cache",
        "loader_prefetch",
        "loader_workers",
        "max_failed_saves",
        "max_failures",
        "micro_batch",
        "num_workers",
        "out",
        "peak_flops",
        "preview_every",
        "preview_size",
        "reading",
        "root",
        "sample",
        "slow_ranks_every",
        "steps",
        "tensorboard",
        "validate_every",
        "validation_samples",
        "watchdog_seconds",
        "worker_resources",
    }
)
"""Settings that may change when a run goes on: they do not change what a step computes, but that
more steps stretch the learning-rate schedule unless `schedule_steps` fixes it."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file of a checkpoint."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that is known of a checkpoint beside its files' content."""

    step: int
    """Optimizer steps taken."""
    world: int
    """Workers that wrote it, each its own share of the optimizer's state."""
    config: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    versions: Mapping[str, str]
    extra: Mapping[str, Any]
    """What the training loop wants back: the state of its guard, the position in the order."""

    def to_json(self) -> bytes:
        """As it is written."""
        values = {
            "format": FORMAT,
            "step": self.step,
            "world": self.world,
            "zero_stage": self.config.get("zero_stage"),
            "snapshot": self.config.get("snapshot"),
            "versions": dict(self.versions),
            "config_digest": digest(dict(self.config)),
            "config": dict(self.config),
            "extra": dict(self.extra),
            "files": {name: vars(entry) for name, entry in sorted(self.files.items())},
        }
        return json.dumps(values, indent=1).encode()

    @classmethod
    def read(cls, storage: Storage, folder: str) -> "Manifest | None":
        """The manifest in a folder; None if there is none that is whole.

        Raises WorkFailed if the storage does not answer, and BadInput if another version of this
        program wrote it: taken for torn, a good checkpoint would be lost.
        """
        path = f"{folder}/{MANIFEST}"
        try:
            content = storage.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except storage_errors() as error:
            raise WorkFailed(f"{storage.uri}/{path}: cannot be read: {error}") from None
        try:
            found = json.loads(content)
            if found["format"] != FORMAT:
                raise BadInput(
                    f"{storage.uri}/{folder}: a checkpoint of format {found['format']}, this "
                    f"version reads {FORMAT}: go on with the one that wrote it, or give another "
                    "--out"
                )
            if found["config_digest"] != digest(found["config"]):
                return None
            if any(Path(name).name != name for name in found["files"]):
                return None  # no way out of the checkpoint's folder
            return cls(
                step=int(found["step"]),
                world=int(found["world"]),
                config=found["config"],
                files={name: FileEntry(**entry) for name, entry in found["files"].items()},
                versions=found["versions"],
                extra=found["extra"],
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], accepted: Collection[str] = ()
) -> list[str]:
    """Settings that differ and change what a step computes, as `name (before -> now)`."""
    old, new = _flat(before), _flat(now)
    allowed = {*_HARMLESS, *accepted}
    return [
        f"{name} ({old.get(name)!r} -> {new.get(name)!r})"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not _is_below(name, allowed)
    ]


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_below(name: str, allowed: Collection[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:i]) in allowed for i in range(1, len(parts) + 1))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
