"""The metrics that a training run has logged."""

import json
from pathlib import Path


def rows(out: Path) -> list[dict]:
    """Return the rows of a run's metrics.jsonl."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    """Return the loss of every step of a run."""
    return [row["loss"] for row in rows(out)]
