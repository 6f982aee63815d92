"""The manifest of a checkpoint: sizes and hashes of its files. It is written last."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from core.config import NonNegativeInt, PositiveInt, Renamed, digest
from core.errors import BadInput, WorkFailed
from core.paths.regular_file import open_regular
from core.storage import Storage, storage_errors

__all__ = ["FORMAT", "MANIFEST", "FileEntry", "Manifest", "differences", "hash_file"]

MANIFEST = "manifest.json"
FORMAT = 2
"""Version of the checkpoint format."""
_CHANGEABLE = frozenset(
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
        "loggers",
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
        "validate_every",
        "validation_samples",
        "watchdog_seconds",
        "worker_resources",
    }
)
"""Settings that may change when a run resumes, because they do not change the result of a step.
Exception: another `steps` stretches the learning-rate schedule unless `schedule_steps` fixes it."""


_MAX_SHOWN = 80
"""Maximum number of characters of a setting's value in a message."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """Size and SHA-256 of a file of a checkpoint."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is recorded about a checkpoint except the content of its files."""

    recipe: str = ""
    """Name of the recipe; empty in checkpoints of older versions."""
    step: int
    """Number of optimizer steps done."""
    world_size: int
    """World size: number of ranks that wrote the checkpoint, each its own part of the optimizer
    state."""
    config: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    versions: Mapping[str, str]
    extra: Mapping[str, Any]
    """State of the training loop: that of its guards, and the position in the sample order."""

    def to_json(self) -> bytes:
        """Return the content of the manifest file."""
        values = {
            "format": FORMAT,
            "recipe": self.recipe,
            "step": self.step,
            "world": self.world_size,
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
        """Return the manifest in a folder; None if it is missing or incomplete.

        Raises WorkFailed if the storage fails. Raises BadInput if the manifest has another format
        version: if it were treated as incomplete, pruning would delete a good checkpoint.
        """
        path = f"{folder}/{MANIFEST}"
        try:
            content = storage.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except storage_errors() as error:
            raise WorkFailed(
                f"{storage.uri}/{path}: cannot be read: {error}; repair the storage, or delete "
                "this checkpoint to use the one before"
            ) from None
        try:
            values = json.loads(content)
            if values["format"] != FORMAT:
                raise BadInput(
                    f"{storage.uri}/{folder}: is a checkpoint of format {values['format']}, this "
                    f"version reads format {FORMAT}: resume with the version that wrote it, or "
                    "give another --out"
                )
            if values["config_digest"] != digest(values["config"]):
                return None
            _Content.model_validate(values)
            return cls(
                recipe=values.get("recipe", ""),
                step=values["step"],
                world_size=values["world"],
                config=values["config"],
                files={name: FileEntry(**entry) for name, entry in values["files"].items()},
                versions=values["versions"],
                extra=values["extra"],
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None


def differences(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    accepted: Collection[str] = (),
    renamed: Mapping[str, Renamed] | None = None,
) -> list[str]:
    """Return the settings that differ and change the result of a step.

    Each is `name (before -> now)`. Settings in `accepted`, and all below them, are left out.
    `renamed` are the old names of settings (`Config.renamed`): `before` and `accepted` may still
    have them.
    """
    new_names = {old: new.path for old, new in (renamed or {}).items()}
    old = {new_names.get(name, name): value for name, value in _flat(before).items()}
    new = _flat(now)
    allowed = {*_CHANGEABLE, *accepted, *(new_names.get(name, name) for name in accepted)}
    return [
        f"{name} ({_shown(old.get(name))} -> {_shown(new.get(name))})"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not _is_below(name, allowed)
    ]


class _Values(BaseModel):
    """A part of a manifest; values with other names are those of another version."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _File(_Values):
    bytes: Annotated[int, Field(ge=0, le=2**60)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Guard(_Values):
    losses: list[float]
    in_a_row: NonNegativeInt
    skipped: NonNegativeInt


class _Faults(_Values):
    recent: list[NonNegativeInt]
    replaced: NonNegativeInt


class _Extra(_Values):
    guard: _Guard
    faults: _Faults


class _Config(_Values):
    snapshot: str | None = None


class _Content(_Values):
    """The content of a manifest file."""

    recipe: str = ""
    step: NonNegativeInt
    world: PositiveInt
    config: _Config
    files: dict[Annotated[str, Field(pattern="^[^/\0]+$")], _File]
    """Names without a folder: a path could lead out of the checkpoint's folder."""
    versions: dict[str, str]
    extra: _Extra


def _shown(value: Any) -> str:
    """Return a value for a message; a long one, such as the content of a file, is cut off."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open_regular(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_below(name: str, allowed: Collection[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:i]) in allowed for i in range(1, len(parts) + 1))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
