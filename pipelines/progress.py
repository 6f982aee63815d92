"""What a person sees of a running build: a live line on a terminal, else one per interval."""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta

from rich.console import Console
from rich.live import Live
from rich.text import Text

from dataset.catalog import Event

__all__ = ["Progress"]


class Progress:
    """Counts outcomes and shows the rate and the time to go, on standard error."""

    def __init__(self, interval: float = 30.0) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._interval = interval
        self._started = time.monotonic()
        self._shown = self._started
        self._stages: Counter[str] = Counter()
        if self._console.is_terminal:
            self._live.start()

    def count(self, events: Sequence[Event]) -> None:
        """Take note of what was done."""
        self._stages.update(event.stage for event in events if event.status == "ok")

    def tick(self, total: int, finals: Mapping[str, int], rendered: int) -> None:
        """Show where things stand, if it is time: `rendered` objects wait for their shard."""
        finals = {**finals, "rendered": rendered} if rendered else finals
        if self._live.is_started:
            self._live.update(Text(self._line(total, finals), no_wrap=True))
        elif time.monotonic() - self._shown >= self._interval:
            self._shown = time.monotonic()
            print(self._line(total, finals), file=sys.stderr, flush=True)

    def done(self, total: int, finals: Mapping[str, int]) -> None:
        """Show the last line and leave the terminal as it was."""
        self._live.stop()
        if total:
            print(self._line(total, finals), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._live.stop()

    def _line(self, total: int, finals: Mapping[str, int]) -> str:
        ended = sum(finals.values())
        elapsed = time.monotonic() - self._started
        states = ", ".join(f"{count} {state}" for state, count in sorted(finals.items()))
        stages = ", ".join(f"{stage} {count}" for stage, count in self._stages.items())
        left = timedelta(seconds=round(elapsed / ended * (total - ended))) if ended else "?"
        clock = timedelta(seconds=round(elapsed))
        return (
            f"[{clock}] {ended}/{total} objects ({states or 'none done'}) | done: "
            f"{stages or 'nothing'} | {left} to go"
        )
