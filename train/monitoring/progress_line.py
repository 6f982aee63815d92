"""The progress line of a run."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from core.quantities import duration

__all__ = ["ProgressPrinter", "progress_line"]


def progress_line(row: Mapping[str, Any], steps: int) -> str:
    """Format a line of metrics.jsonl: step, loss, speed, and time left at that speed."""
    time_left = duration((steps - row["step"]) * row["seconds"])
    loss = "not finite" if row["loss"] is None else f"{row['loss']:.4f}"
    line = f"step {row['step']}/{steps}  loss {loss}  {row['seconds']:.2f} s/step"
    line += f"  {row['samples_per_second']:.3g} samples/s"
    if row.get("skipped_so_far"):
        line += f"  {row['skipped_so_far']} steps skipped"
    if row.get("replaced_so_far"):
        line += f"  {row['replaced_so_far']} samples replaced"
    return f"{line}  {time_left} left"


class ProgressPrinter:
    """Printer of progress lines: at most one per `interval` seconds, and one for the last step."""

    def __init__(self, steps: int, interval: float = 10.0) -> None:
        self._steps, self._interval = steps, interval
        self._printed = time.monotonic()

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Print the progress of a line of the metrics, if it is due."""
        now = time.monotonic()
        if now - self._printed >= self._interval or row["step"] == self._steps:
            self._printed = now
            print(progress_line(row, self._steps), file=sys.stderr, flush=True)
