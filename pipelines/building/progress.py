"""The progress of running work: a table on a terminal, else a line per interval."""

import math
import sys
import time
from collections.abc import Callable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from core.monitoring.endpoint import Metric
from core.quantities import duration
from dataset.catalog.event_log import Event
from pipelines.building.build_metrics import BuildCounts, build_metrics
from pipelines.building.estimates.forecast import Forecast

__all__ = ["Display", "Progress", "print_when_waiting"]

_REFRESH_SECONDS = 0.25
"""Seconds between two updates of a terminal."""
_METRICS_SECONDS = 1.0
"""Minimum seconds between two computations of the metrics."""


def print_when_waiting(wait: bool) -> Callable[[str], None] | None:
    """Return the callback that `exclusive_lock` calls while it waits; None forbids waiting."""

    def print_line(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return print_line if wait else None


class Display:
    """Shows the progress of work on standard error, at most once per interval."""

    def __init__(self, interval: float = 30.0) -> None:
        """`interval` is the seconds between two lines where standard error is no terminal."""
        console = Console(stderr=True, highlight=False)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._is_terminal = console.is_terminal
        self._interval = _REFRESH_SECONDS if self._is_terminal else interval
        self.started = self._last_shown = time.monotonic()

    def show(
        self, line: Callable[[], str], live_view: Callable[[], RenderableType] | None = None
    ) -> None:
        """Show the line, or `live_view` on a terminal, if the interval has passed."""
        if time.monotonic() - self._last_shown < self._interval:
            return
        self._last_shown = time.monotonic()
        if self._is_terminal:
            self._live.start()  # the first one hides the cursor
            self._live.update(live_view() if live_view else Text(line()), refresh=True)
        else:
            print(line(), file=sys.stderr, flush=True)

    def end(self, line: str) -> None:
        """Restore the terminal and print the last line."""
        self.close()
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the live view and restore the terminal."""
        self._live.stop()


class Progress:
    """The progress of a build: a row per stage, and the objects that are done, the rate and ETA."""

    def __init__(self, stages: Sequence[str]) -> None:
        """`stages` are the names of a build's stages, in their order."""
        self._display = Display()
        self._forecast = Forecast(stages, started=self._display.started)
        self._metrics: Sequence[Metric] = ()
        self._measured = -math.inf

    def add_waiting(self, stage: str, num_objects: int) -> None:
        """Add objects that wait for a stage when the build starts."""
        self._forecast.add_waiting(stage, num_objects)

    def record(self, waited: str, events: Sequence[Event], then: str | None) -> None:
        """Record the events of an object that waited for a stage; see `Forecast.record`."""
        self._forecast.record(waited, events, then, time.monotonic())

    def tick(self, counts: Callable[[], BuildCounts], waiting_for: Callable[[], str] = str) -> None:
        """Show the progress if the interval has passed, and update the metrics every second.

        `waiting_for` returns why no task has ended for a while, or an empty string.
        """
        now = time.monotonic()
        if now - self._measured >= _METRICS_SECONDS:
            self._metrics, self._measured = build_metrics(counts(), self._forecast, now), now
        self._display.show(
            lambda: " | ".join(
                filter(None, [self._summary(counts(), now), self._stage_counts(now), waiting_for()])
            ),
            lambda: Group(
                self._table(now),
                *map(Text, filter(None, [self._summary(counts(), now), waiting_for()])),
            ),
        )

    def metrics(self) -> Sequence[Metric]:
        """Return the metrics of the last tick. Threads may call it."""
        return self._metrics

    def done(self, counts: BuildCounts) -> None:
        """Print the last line and restore the terminal."""
        if counts.total:
            self._display.end(self._summary(counts, time.monotonic()))

    def close(self) -> None:
        """Restore the terminal."""
        self._display.close()

    def _summary(self, counts: BuildCounts, now: float) -> str:
        """Return one line: elapsed time, objects done of all, their states, rate, time left."""
        total, done = counts.total, counts.num_done
        states = [f"{count:,} {state}" for state, count in sorted(counts.finals.items())]
        if counts.unpacked:
            states.append(f"{counts.unpacked:,} to pack")
        objects = "object" if total == 1 else "objects"
        line = f"[{duration(now - self._display.started)}] {done:,} of {total:,} {objects} done"
        if states:
            line += f": {', '.join(states)}"
        if done < total:
            left = self._forecast.seconds_left(now)
            time_left = "time left unknown" if left is None else f"{duration(left)} left"
            line += f" | {self._forecast.objects_per_minute(now):.1f} per minute, {time_left}"
        return line

    def _stage_counts(self, now: float) -> str:
        """Return how many objects passed each stage so far."""
        counts = [f"{row.stage} {row.done:,}" for row in self._forecast.rows(now) if row.done]
        return f"stages: {', '.join(counts) or 'none done'}"

    def _table(self, now: float) -> Table:
        """Return a row per stage, within 80 columns."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("stage")
        for name in ("waiting", "done", "failed", "per minute", "seconds each"):
            table.add_column(name, justify="right")
        for row in self._forecast.rows(now):
            counts = (f"{count:,}" for count in (row.waiting, row.done, row.failed))
            each = "" if row.mean_seconds is None else f"{row.mean_seconds:.2f}"
            table.add_row(row.stage, *counts, f"{row.per_minute:.1f}", each)
        return table
