"""The request budget: how many requests may be sent in any window of time, and when.

A `RateLimiter` gives every request a slot on a clock, 1 / rate after the slot before it; after a
quiet time a burst of slots is free at once (the generic cell rate algorithm). Its clock stops
during a pause, so a pause that any worker announces delays the slots of all that wait. A
`LimiterClient` waits for slots; the limiter may be in another process (`cluster_budget`).
"""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from core.failures import FailureKind
from pipelines.transfers.outcome import FetchFailed

__all__ = [
    "LEASE_SECONDS",
    "LimiterClient",
    "LocalBudget",
    "RateLimiter",
    "RequestBudget",
    "Reservation",
]

_BURST_SHARE = 0.05
"""Share of a window's requests that may be sent at once after a quiet time."""
LEASE_SECONDS = 1.0
"""Seconds for which a client may keep the requests of one reservation."""
_LEASE_CLIENTS = 64
"""Clients that share the requests of LEASE_SECONDS: a reservation is one of this many parts."""


class RequestBudget(Protocol):
    """Shared by all clients of a server. Safe to use from several threads."""

    def take(self, seconds: float) -> None:
        """Wait until a request may be sent, at most this long. Raises FetchFailed (download)."""

    def pause(self, seconds: float) -> None:
        """Send no request for this long, because the server asked for it."""

    def limit(self, requests: int, seconds: float) -> None:
        """Apply the server's own limit of requests per window."""


@dataclass(frozen=True)
class Reservation:
    """Permission to send `count` requests when the limiter's clock reaches `slot`."""

    limiter: str
    slot: float
    count: int


class _PausableClock:
    """A clock that stops during pauses."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._paused_until = clock()
        self._paused_seconds = 0.0
        """Of all pauses so far; the current one counts to its end."""

    def now(self) -> float:
        """Return the time without pauses; during a pause, that of its begin."""
        return max(self._clock(), self._paused_until) - self._paused_seconds

    def seconds_until(self, moment: float) -> float:
        """Return the real seconds until this clock reaches a moment, if no pause is added."""
        rest = max(0.0, self._paused_until - self._clock())
        return max(0.0, moment - self.now()) + rest

    def pause(self, seconds: float) -> None:
        """Stop for this long from now; a pause that already lasts longer stays."""
        now = self._clock()
        added = now + seconds - max(self._paused_until, now)
        if added > 0:
            self._paused_seconds += added
            self._paused_until = now + seconds


class RateLimiter:
    """Allows at most `requests` in any window of `seconds`, apart from pauses."""

    def __init__(
        self,
        requests: int,
        seconds: float,
        lease_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With a lease, reservations may be of several requests, to be used within that time."""
        self._lease_seconds = lease_seconds
        self._clock = _PausableClock(clock)
        self._lock = threading.Lock()
        self._name = uuid.uuid4().hex
        self._configured = (requests, seconds)
        self._announced: tuple[int, float] | None = None
        self._next_slot = -float("inf")

    def configure(self, requests: int, seconds: float) -> None:
        """Replace the configured budget."""
        with self._lock:
            self._configured = (requests, seconds)

    def limit(self, requests: int, seconds: float) -> None:
        """Set the limit that the server announced; the stricter one of both counts."""
        with self._lock:
            self._announced = (requests, seconds)

    def reserve(self, max_wait: float) -> tuple[Reservation | None, float]:
        """Return the next reservation, and the seconds until its slot if no pause is added.

        If that is longer than `max_wait`, nothing is reserved: unused slots would delay all later
        requests.
        """
        with self._lock:
            burst, rate = self._burst_and_rate()
            now = self._clock.now()
            start = max(self._next_slot, now - (burst - 1) / rate)
            # Several at a time only while nobody waits: a client that waits needs one.
            batch = max(1, int(rate * self._lease_seconds / _LEASE_CLIENTS))
            count = 1 if start > now else batch
            reservation = Reservation(self._name, start + (count - 1) / rate, count)
            wait = self._clock.seconds_until(reservation.slot)
            if wait > max_wait:
                return None, wait
            self._next_slot = start + count / rate
            return reservation, wait

    def wait(self, reservation: Reservation) -> float | None:
        """Return the seconds until a reservation's slot; None for one of another limiter."""
        with self._lock:
            if reservation.limiter != self._name:
                return None
            return self._clock.seconds_until(reservation.slot)

    def pause(self, seconds: float) -> None:
        """Delay all slots so that none comes within this many seconds."""
        with self._lock:
            self._clock.pause(seconds)

    def _burst_and_rate(self) -> tuple[float, float]:
        """Return a burst and a rate so that burst + rate * window is what the window allows."""
        limits = [self._configured, *([self._announced] if self._announced else [])]
        requests, seconds = min(limits, key=lambda limit: limit[0] / limit[1])
        burst = max(1, int(requests * _BURST_SHARE))
        return burst, max(requests - burst, 1) / seconds


class LimiterClient:
    """Waits for reservations, and keeps the remaining requests of one for LEASE_SECONDS."""

    def __init__(
        self,
        reserve: Callable[[float], tuple[Reservation | None, float]],
        wait: Callable[[Reservation], float | None],
    ) -> None:
        """`reserve` and `wait` are the methods of a RateLimiter, or call them in an actor."""
        self._reserve = reserve
        self._wait = wait
        self._lock = threading.Lock()
        self._kept = 0
        self._kept_until = 0.0

    def take(self, seconds: float) -> None:
        """Wait until a request may be sent, at most this long. Raises FetchFailed (download)."""
        if self._take_kept():
            return
        deadline = time.monotonic() + seconds
        reservation, wait = self._reserve_before(deadline)
        while wait > 0:
            if time.monotonic() + wait > deadline:
                raise _over_budget(wait)
            time.sleep(wait)
            # A pause may have been added meanwhile, or the limiter replaced.
            left = self._wait(reservation)
            if left is None:
                reservation, left = self._reserve_before(deadline)
            wait = left
        with self._lock:
            self._kept = reservation.count - 1
            self._kept_until = time.monotonic() + LEASE_SECONDS

    def drop(self) -> None:
        """Give up the requests that are kept."""
        with self._lock:
            self._kept = 0

    def _reserve_before(self, deadline: float) -> tuple[Reservation, float]:
        reservation, wait = self._reserve(max(0.0, deadline - time.monotonic()))
        if reservation is None:
            raise _over_budget(wait)
        return reservation, wait

    def _take_kept(self) -> bool:
        with self._lock:
            if self._kept and time.monotonic() < self._kept_until:
                self._kept -= 1
                return True
            return False


class LocalBudget:
    """The budget of one process."""

    def __init__(self, requests: int, seconds: float) -> None:
        limiter = RateLimiter(requests, seconds)
        self.take = LimiterClient(limiter.reserve, limiter.wait).take
        self.pause = limiter.pause
        self.limit = limiter.limit


def _over_budget(wait: float) -> FetchFailed:
    text = f"the request budget has no turn for {wait:.0f} s; --fetch.wait-seconds"
    return FetchFailed(FailureKind.DOWNLOAD, text)
