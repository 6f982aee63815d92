"""Logs of a run, one JSON object a line: metrics.jsonl has exactly one per optimizer step,
validation.jsonl one per validation, skipped.jsonl one per step that changed no weight,
replaced.jsonl one per damaged sample; whatever was killed in between."""

import json
import math
from pathlib import Path
from typing import Any

__all__ = ["METRICS", "REPLACED", "SKIPPED", "VALIDATION", "MetricsLog", "read_metrics"]

METRICS = "metrics.jsonl"
VALIDATION = "validation.jsonl"
SKIPPED = "skipped.jsonl"
REPLACED = "replaced.jsonl"


class MetricsLog:
    """Appends lines that have a `step`. Those after the step that a run goes on from are cut off
    first."""

    def __init__(self, out: Path, first_step: int, name: str = METRICS) -> None:
        out.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(out, name) if row["step"] <= first_step]
        temporary = out / f".{name}.tmp"
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        temporary.replace(out / name)
        self._file = open(out / name, "a", buffering=1)  # noqa: SIM115 - open for the whole run

    def write(self, **values: Any) -> None:
        """Append one line; a number that is not finite becomes null, which JSON knows."""
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        self._file.write(json.dumps(finite) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


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
