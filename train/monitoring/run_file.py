"""The record of a run's last start: its recipe, settings, hosts and versions."""

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.atomic import atomic_write
from core.errors import Damaged
from core.paths.regular_file import read_regular
from train.settings.versions import installed_versions

if TYPE_CHECKING:
    # `lrm train --status` reads the record without importing torch.
    from train.settings.train_config import TrainConfig

__all__ = ["RUN_FILE", "known_run", "read_run", "write_run"]

RUN_FILE = "run.json"
_KINDS = {"config": dict, "started": str, "first_step": int, "hosts": list}
"""Types of the values that every record has."""


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
        record = json.loads(read_regular(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    is_record = isinstance(record, dict) and all(
        isinstance(record.get(name), kind) for name, kind in _KINDS.items()
    )
    if not is_record or not isinstance(record["config"].get("steps"), int):
        raise _damaged(path, "it is no record of a run")
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
