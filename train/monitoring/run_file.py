"""The record of a run's last start: its recipe, settings, hosts and versions."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.atomic import atomic_write
from train.settings.versions import installed_versions

if TYPE_CHECKING:
    # `lrm train --status` reads the record without importing torch.
    from train.settings.train_config import TrainConfig

__all__ = ["RUN_FILE", "read_run", "write_run"]

RUN_FILE = "run.json"


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
    """Return the record in a run's folder; None if there is none, or it is no record of a run."""
    try:
        record = json.loads((out / RUN_FILE).read_bytes())
        return record if isinstance(record["config"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
