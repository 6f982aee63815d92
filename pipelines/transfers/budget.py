"""The request budget: how many requests may be sent in any window of time, and when.

A `Ledger` gives every request a turn. Turns are points on a clock that stands still during a pause,
so a pause that anybody announces moves the turns of all who wait.
"""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipelines.transfers.outcome import FetchFailed

__all__ = ["LEASE_SECONDS", "Ledger", "LocalBudget", "RequestBudget", "Taker", "Turn"]

_BURST_SHARE = 0.05
"""Of the requests of a window: as many may be sent at once after a quiet time."""
LEASE_SECONDS = 1.0
"""How long turns that were handed out together may be kept."""
_NUM_HOLDERS = 64
"""Turns are handed out so sparingly that so many workers share what a lease's time brings."""


class RequestBudget(Protocol):
    """Shared by all who ask the same server. Safe to use from several threads."""

    def take(self, seconds: float) -> None:
        """Wait until a request may be sent. Raises FetchFailed(download) after so many seconds."""

    def pause(self, seconds: float) -> None:
        """Nobody sends a request for so long: the server said so."""

    def limit(self, requests: int, seconds: float) -> None:
        """The server announced that it allows so many requests in so many seconds."""


@dataclass(frozen=True)
class Turn:
    """Leave to send `count` requests when the ledger's clock has come to `slot`."""

    ledger: str
    slot: float
    count: int


class Ledger:
    """Hands out turns: at most `requests` in any window of `seconds`, pauses apart."""

    def __init__(
        self,
        requests: int,
        seconds: float,
        lease_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With a lease turns are handed out in small batches, which may be kept for so long."""
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._name = uuid.uuid4().hex
        self._own = (requests, seconds)
        self._announced: tuple[int, float] | None = None
        self._halted = 0.0
        """Seconds of all pauses so far, of the present one to its end."""
        self._paused_until = clock()
        self._next = -float("inf")

    def configure(self, requests: int, seconds: float) -> None:
        """Another budget of our own from now on."""
        with self._lock:
            self._own = (requests, seconds)

    def limit(self, requests: int, seconds: float) -> None:
        """What the server announced; our own budget counts as well."""
        with self._lock:
            self._announced = (requests, seconds)

    def reserve(self, patience: float) -> tuple[Turn | None, float]:
        """The next turn, and the seconds until it comes if nobody announces a pause.

        None, and the turn stays free, if the caller would not wait so long: turns that nobody uses
        would hold up all who come later.
        """
        with self._lock:
            burst, rate = self._burst_and_rate()
            now = self._now()
            start = max(self._next, now - (burst - 1) / rate)
            # Who stands in a queue has use for one turn.
            count = 1 if start > now else max(1, int(rate * self._lease_seconds / _NUM_HOLDERS))
            turn = Turn(self._name, start + (count - 1) / rate, count)
            wait = self._seconds_until(turn.slot)
            if wait > patience:
                return None, wait
            self._next = start + count / rate
            return turn, wait

    def wait(self, turn: Turn) -> float | None:
        """Seconds until a turn comes; None if it is of a ledger that is no more."""
        with self._lock:
            return self._seconds_until(turn.slot) if turn.ledger == self._name else None

    def pause(self, seconds: float) -> None:
        """Stop the clock for so long from now; a pause that lasts longer already stays."""
        with self._lock:
            now = self._clock()
            longer = now + seconds - max(self._paused_until, now)
            if longer > 0:
                self._halted += longer
                self._paused_until = now + seconds

    def _burst_and_rate(self) -> tuple[float, float]:
        """So that burst + rate * window is what the window allows."""
        sizes = [self._own] if self._announced is None else [self._own, self._announced]
        requests, seconds = min(sizes, key=lambda item: item[0] / item[1])
        burst = max(1, int(requests * _BURST_SHARE))
        return burst, max(requests - burst, 1) / seconds

    def _now(self) -> float:
        return max(self._clock(), self._paused_until) - self._halted

    def _seconds_until(self, slot: float) -> float:
        paused = max(0.0, self._paused_until - self._clock())
        return max(0.0, slot - self._now()) + paused


class LocalBudget:
    """The budget of one process."""

    def __init__(self, requests: int, seconds: float) -> None:
        self._ledger = Ledger(requests, seconds)
        self._taker = Taker(self._ledger.reserve, self._ledger.wait)

    def take(self, seconds: float) -> None:
        """Wait until a request may be sent. Raises FetchFailed(download) after so many seconds."""
        self._taker.take(seconds)

    def pause(self, seconds: float) -> None:
        """No request is sent for so long."""
        self._ledger.pause(seconds)

    def limit(self, requests: int, seconds: float) -> None:
        """The server announced that it allows so many requests in so many seconds."""
        self._ledger.limit(requests, seconds)


class Taker:
    """Waits for turns, and keeps those that came together for a moment."""

    def __init__(
        self,
        reserve: Callable[[float], tuple[Turn | None, float]],
        wait: Callable[[Turn], float | None],
    ) -> None:
        self._reserve = reserve
        self._wait = wait
        self._lock = threading.Lock()
        self._left = 0
        self._until = 0.0

    def take(self, seconds: float) -> None:
        """Wait for one turn, at most so many seconds. Raises FetchFailed(download)."""
        if self._take_kept():
            return
        end = time.monotonic() + seconds
        turn, wait = self._next_turn(end)
        while wait > 0:
            if time.monotonic() + wait > end:
                raise _no_turn(wait)
            time.sleep(wait)
            # Somebody may have announced a pause meanwhile.
            left = self._wait(turn)
            if left is None:
                turn, left = self._next_turn(end)
            wait = left
        with self._lock:
            self._left, self._until = turn.count - 1, time.monotonic() + LEASE_SECONDS

    def _next_turn(self, end: float) -> tuple[Turn, float]:
        """A turn that comes until then. Raises FetchFailed(download)."""
        turn, wait = self._reserve(max(0.0, end - time.monotonic()))
        if turn is None:
            raise _no_turn(wait)
        return turn, wait

    def drop(self) -> None:
        """Give up the turns that are kept."""
        with self._lock:
            self._left = 0

    def _take_kept(self) -> bool:
        with self._lock:
            if self._left and time.monotonic() < self._until:
                self._left -= 1
                return True
            return False


def _no_turn(wait: float) -> FetchFailed:
    text = f"the request budget has no turn for {wait:.0f} s; --fetch.wait-seconds"
    return FetchFailed("download", text)
