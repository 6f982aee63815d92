"""What a person sees of running work: a live picture on a terminal, else a line per interval."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from core.quantities import duration
from dataset.catalog.event_log import Event
from pipelines.building.estimates.forecast import Forecast

__all__ = ["Display", "Progress", "waiter"]

_REFRESH_SECONDS = 0.25


def waiter(wait: bool) -> Callable[[str], None] | None:
    """What `core.lock.exclusive` calls when it has to wait; None if it must not."""

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    return say if wait else None


class Display:
    """Shows how far work is, on standard error."""

    def __init__(self, interval: float = 30.0) -> None:
        console = Console(stderr=True, highlight=False)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        if console.is_terminal:
            self._live.start()
        self._interval = _REFRESH_SECONDS if console.is_terminal else interval
        self.started = self._shown = time.monotonic()

    def show(
        self, line: Callable[[], str], picture: Callable[[], RenderableType] | None = None
    ) -> None:
        """If it is time: the line, or on a terminal the picture."""
        if time.monotonic() - self._shown < self._interval:
            return
        self._shown = time.monotonic()
        if self._live.is_started:
            self._live.update(picture() if picture else Text(line()), refresh=True)
        else:
            print(line(), file=sys.stderr, flush=True)

    def end(self, line: str) -> None:
        """Show the last line in place of the picture."""
        self.close()
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._live.stop()


class Progress:
    """What a build shows: a row per stage, and how many objects are done, how fast, until when."""

    def __init__(self, stages: Sequence[str]) -> None:
        """`stages` are the names of a build's stages, in their order."""
        self._display = Display()
        self._forecast = Forecast(stages, started=self._display.started)

    def wait(self, stage: str, num_objects: int) -> None:
        """Some objects wait for a stage, as the build begins."""
        self._forecast.wait(stage, num_objects)

    def settle(self, waited: str, events: Sequence[Event], then: str | None) -> None:
        """An object went through the stage that it waited for; see `Forecast.settle`."""
        self._forecast.settle(waited, events, then, time.monotonic())

    def tick(self, total: int, finals: Mapping[str, int], rendered: int) -> None:
        """Show where things stand, if it is time: `rendered` objects wait for their shard."""
        now = time.monotonic()
        finals = {**finals, "rendered": rendered} if rendered else finals
        self._display.show(
            lambda: self._line(total, finals, now, with_stages=True),
            lambda: Group(self._table(now), Text(self._line(total, finals, now))),
        )

    def done(self, total: int, finals: Mapping[str, int]) -> None:
        """Show the last line and leave the terminal as it was."""
        if total:
            self._display.end(self._line(total, finals, time.monotonic(), with_stages=True))

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._display.close()

    def _line(
        self, total: int, finals: Mapping[str, int], now: float, with_stages: bool = False
    ) -> str:
        ended = sum(count for state, count in finals.items() if state != "rendered")
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(finals.items()))
        parts = [f"{ended:,}/{total:,} objects ({states or 'none done'})"]
        if with_stages:
            done = (f"{row.stage} {row.done:,}" for row in self._forecast.rows(now) if row.done)
            parts.append(f"done: {', '.join(done) or 'nothing'}")
        if ended < total:
            left = duration(self._forecast.seconds_left(now))
            parts.append(f"{self._forecast.objects_per_minute(now):.1f} per minute, {left} to go")
        return f"[{duration(now - self._display.started)}] " + " | ".join(parts)

    def _table(self, now: float) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("stage")
        for name in ("waiting", "done", "failed", "per minute", "seconds each"):
            table.add_column(name, justify="right")
        for row in self._forecast.rows(now):
            counts = (f"{count:,}" for count in (row.waiting, row.done, row.failed))
            each = "" if row.mean_seconds is None else f"{row.mean_seconds:.2f}"
            table.add_row(row.stage, *counts, f"{row.per_minute:.1f}", each)
        return table
