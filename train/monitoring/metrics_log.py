"""Logs of a run, one JSON object a line: metrics.jsonl has exactly one per optimizer step,
validation.jsonl one per validation, skipped.jsonl one per step that changed no weight,
replaced.jsonl one per damaged sample; whatever was killed in between."""

import json
import logging
import math
from pathlib import Path
from typing import Any

from core.atomic import atomic_write

__all__ = ["METRICS", "REPLACED", "SKIPPED", "VALIDATION", "MetricsLog", "read_metrics"]

_log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
VALIDATION = "validation.jsonl"
SKIPPED = "skipped.jsonl"
REPLACED = "replaced.jsonl"


class MetricsLog:
    """Appends lines that have a `step`. Those after the step that a run goes on from are cut off
    first.

    A line that cannot be written, on a full disk, waits for the next one: a log ends no training.
    """

    def __init__(self, out: Path, first_step: int, name: str = METRICS) -> None:
        kept = [row for row in read_metrics(out, name) if row["step"] <= first_step]
        atomic_write(out / name, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = open(out / name, "ab", buffering=0)  # noqa: SIM115 - open for the whole run
        self._waiting = bytearray()
        self._failed = False

    def write(self, **values: Any) -> None:
        """Append one line; a number that is not finite becomes null, which JSON knows."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        self._waiting += json.dumps(finite).encode() + b"\n"
        self._drain()

    def close(self) -> None:
        """Close the file."""
        self._drain()
        self._file.close()

    def _drain(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]
        except OSError as error:
            if not self._failed:
                _log.warning("%s: %s; its lines wait for room", self._file.name, error)
            self._failed = True
        else:
            self._failed = False


def read_metrics(out: Path, name: str = METRICS) -> list[dict[str, Any]]:
    """The lines of a run so far; a last line that was cut off by a kill is passed over."""
    path = out / name
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
