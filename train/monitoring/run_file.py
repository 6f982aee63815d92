"""The record of a run's last start: its recipe, settings, hosts and versions."""

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from core.atomic import atomic_write
from core.config import NonNegativeInt, PositiveInt
from core.errors import Damaged
from core.paths.regular_file import read_regular
from train.settings.versions import installed_versions

if TYPE_CHECKING:
    # `lrm train --status` reads the record without importing torch.
    from train.settings.train_config import TrainConfig

__all__ = ["RUN_FILE", "known_run", "read_run", "write_run"]

RUN_FILE = "run.json"


class _Config(BaseModel):
    """The settings that are read from a record; others may be those of another version."""

    model_config = ConfigDict(strict=True)

    steps: PositiveInt
    checkpoints: str | None = None
    checkpoint_every: PositiveInt | None = None


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)

    recipe: str = ""
    started: str
    first_step: NonNegativeInt
    hosts: list[str]
    config: _Config


def write_run(out: Path, config: "TrainConfig", first_step: int, hosts: Sequence[str]) -> None:
    """Write the record of a start into the run's folder."""
    record: Mapping[str, Any] = {
        "recipe": config.recipe,
        "started": datetime.now(UTC).isoformat(),
        "first_step": first_step,
        "hosts": list(hosts),
        "versions": installed_versions(),
        "config": config.dump(),
    }
    atomic_write(out / RUN_FILE, json.dumps(record, indent=1))


def read_run(out: Path) -> dict[str, Any] | None:
    """Return the record in a run's folder; None if there is none. Raises Damaged."""
    path = out / RUN_FILE
    try:
        content = read_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from None
    try:
        record: dict[str, Any] = json.loads(content)
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    try:
        _Record.model_validate(record)
    except (ValueError, OverflowError):
        raise _damaged(path, "it is no record of a run") from None
    return record


def known_run(out: Path) -> dict[str, Any] | None:
    """Return the record in a run's folder; None if there is none, or it is damaged."""
    try:
        return read_run(out)
    except Damaged:
        return None


def _damaged(path: Path, problem: str) -> Damaged:
    return Damaged(
        f"{path}: damaged: {problem}; delete it (rm -r {shlex.quote(str(path))}) and run the "
        "command of the training again, which writes it anew, or give the folder of a checkpoint"
    )
