"""The progress of a run whose workers are on other machines, read from its folder."""

import sys
import threading
from pathlib import Path
from typing import Self

from train.monitoring.metrics_log import last_metrics
from train.monitoring.progress_line import progress_line

__all__ = ["ProgressTail"]


class ProgressTail:
    """A thread that prints the progress of training from metrics.jsonl, once per interval."""

    def __init__(self, out: Path, steps: int, interval: float = 10.0) -> None:
        self._out, self._steps, self._interval = out, steps, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        before = last_metrics(self._out)
        shown = before["step"] if before else 0
        while True:
            ended = self._stop.wait(self._interval)
            last = last_metrics(self._out)
            if last and last["step"] != shown:
                shown = last["step"]
                print(progress_line(last, self._steps), file=sys.stderr, flush=True)
            if ended:
                return
