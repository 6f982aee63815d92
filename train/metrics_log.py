"""metrics.jsonl: one line per optimizer step, whatever was killed in between."""

import json
from pathlib import Path
from typing import Any

__all__ = ["MetricsLog", "read_metrics"]

_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends a line per step. Lines after the step that a run goes on from are cut off first."""

    def __init__(self, out: Path, first_step: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(out) if row["step"] <= first_step]
        temporary = out / f".{_FILE}.tmp"
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        temporary.replace(out / _FILE)
        self._file = open(out / _FILE, "a", buffering=1)  # noqa: SIM115 - open for the whole run

    def write(self, **values: Any) -> None:
        """Append one line."""
        self._file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of a run so far; a last line that was cut off by a kill is passed over."""
    path = out / _FILE
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
