"""What the benchmarks share that overfit a model on the first objects of a snapshot."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.help_text import benchmark_parser
from dataset.root import open_root
from dataset.snapshots.snapshot import open_snapshot, write_snapshot

__all__ = ["Curve", "overfit_parser", "overfit_settings"]


def overfit_parser(
    description: str | None, *, batch_size: int, steps: int, learning_rate: float
) -> argparse.ArgumentParser:
    """Return a parser with the options of all these benchmarks, and these defaults."""
    parser = benchmark_parser(description)
    add = parser.add_argument
    add("--root", required=True, help="folder or URI of a dataset of real renders")
    add("--snapshot", required=True, metavar="ID", help="snapshot in that dataset")
    add("--out", type=Path, required=True, metavar="DIR", help="new run folder")
    add("--objects", type=int, default=8, help="number of objects")
    add("--batch-size", type=int, default=batch_size, help="objects per step")
    add("--steps", type=int, default=steps, help="training steps")
    add("--every", type=int, default=100, help="steps between two measurements")
    add("--learning-rate", type=float, default=learning_rate, help="first learning rate")
    return parser


def overfit_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Write a snapshot of the first objects; return the settings of a run on it."""
    root = open_root(options.root)
    samples = open_snapshot(root, options.snapshot).samples[: options.objects]
    return {
        "root": options.root,
        "snapshot": write_snapshot(root, samples, None, protect_days=0)["snapshot"],
        "out": str(options.out),
        "steps": options.steps,
        "batch_size": options.batch_size,
        "checkpoint_every": options.steps,
        "preview_every": options.every,
        "optimizer": {
            "learning_rate": options.learning_rate,
            "final_learning_rate": options.learning_rate / 20,
            "warmup_steps": 50,
        },
    }


class Curve:
    """A metric of all objects over time, which is printed and appended to a run's curve.jsonl."""

    def __init__(self, out: str, metric: str, digits: int) -> None:
        self._path, self._metric, self._digits = Path(out) / "curve.jsonl", metric, digits
        self._started = time.monotonic()

    def append(self, values: Sequence[float]) -> None:
        """Append mean, least and most of the objects' values, with the time since the start."""
        numbers = {self._metric: mean(values), "least": min(values), "most": max(values)}
        row = {
            "minutes": round((time.monotonic() - self._started) / 60, 2),
            "cpu_minutes": round(time.process_time() / 60, 2),
            **{name: round(number, self._digits) for name, number in numbers.items()},
        }
        print(json.dumps(row), flush=True)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
