"""The request budget: how many requests may be sent in any window of time, and when.

A `RateLimiter` assigns every request a slot in time, 1 / rate after the previous slot; after an
idle time, a burst of slots is free at once (the generic cell rate algorithm, GCRA). Its clock stops
during a pause, so a pause that one worker requests delays the slots of all waiting workers. A
`LimiterClient` waits for slots; its limiter may run in another process (`cluster_budget`).
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
"""Share of a window's requests that may be sent at once after an idle time."""
LEASE_SECONDS = 1.0
"""Seconds until the requests of a reservation expire."""
_LEASE_CLIENTS = 64
"""A reservation holds 1 / _LEASE_CLIENTS of the requests that LEASE_SECONDS allow, so this many
clients can share them."""


class RequestBudget(Protocol):
    """A budget that all clients of a server share. It is thread-safe."""

    def acquire(self, seconds: float) -> None:
        """Wait at most `seconds` until a request may be sent. Raises FetchFailed (download)."""

    def pause(self, seconds: float) -> None:
        """Send no request for `seconds`, because the server asked for that."""

    def limit(self, requests: int, seconds: float) -> None:
        """Apply the server's own limit of requests per window of `seconds`."""


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
        """Total length of all pauses so far, the current one in full."""

    def now(self) -> float:
        """Return the time without pauses; during a pause, the time at which it began."""
        return max(self._clock(), self._paused_until) - self._paused_seconds

    def seconds_until(self, moment: float) -> float:
        """Return the real seconds until this clock reaches a moment, if no pause is added."""
        rest = max(0.0, self._paused_until - self._clock())
        return max(0.0, moment - self.now()) + rest

    def pause(self, seconds: float) -> None:
        """Stop for `seconds` from now; a longer pause that is in progress stays."""
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
        """Create a limiter; with a lease, a reservation may hold several requests.

        They must be used within `lease_seconds`.
        """
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
        """Set the limit that the server announced; the stricter of both limits applies."""
        with self._lock:
            self._announced = (requests, seconds)

    def reserve(self, max_wait: float) -> tuple[Reservation | None, float]:
        """Return the next reservation, and the seconds until its slot if no pause is added.

        If that wait is longer than `max_wait`, nothing is reserved, because unused slots would
        delay all later requests.
        """
        with self._lock:
            burst, rate = self._burst_and_rate()
            now = self._clock.now()
            start = max(self._next_slot, now - (burst - 1) / rate)
            # Several requests only while no client waits: a client that waits needs just one.
            batch = max(1, int(rate * self._lease_seconds / _LEASE_CLIENTS))
            count = 1 if start > now else batch
            reservation = Reservation(self._name, start + (count - 1) / rate, count)
            wait = self._clock.seconds_until(reservation.slot)
            if wait > max_wait:
                return None, wait
            self._next_slot = start + count / rate
            return reservation, wait

    def wait(self, reservation: Reservation) -> float | None:
        """Return the seconds until a reservation's slot; None if another limiter made it."""
        with self._lock:
            if reservation.limiter != self._name:
                return None
            return self._clock.seconds_until(reservation.slot)

    def pause(self, seconds: float) -> None:
        """Delay all slots, so that none is reached within `seconds`."""
        with self._lock:
            self._clock.pause(seconds)

    def _burst_and_rate(self) -> tuple[float, float]:
        """Return (burst, rate) such that burst + rate * window is the number that is allowed."""
        limits = [self._configured, *([self._announced] if self._announced else [])]
        requests, seconds = min(limits, key=lambda limit: limit[0] / limit[1])
        burst = max(1, int(requests * _BURST_SHARE))
        return burst, max(requests - burst, 1) / seconds


class LimiterClient:
    """A client of a rate limiter: waits for slots, and keeps unused requests of a reservation."""

    def __init__(
        self,
        reserve: Callable[[float], tuple[Reservation | None, float]],
        wait: Callable[[Reservation], float | None],
    ) -> None:
        """Create a client; `reserve` and `wait` call the methods of a RateLimiter."""
        self._reserve = reserve
        self._wait = wait
        self._lock = threading.Lock()
        self._reserved = 0
        """Requests of the last reservation that are not used yet."""
        self._reserved_until = 0.0

    def acquire(self, seconds: float) -> None:
        """Wait at most `seconds` until a request may be sent. Raises FetchFailed (download)."""
        if self._use_reserved():
            return
        deadline = time.monotonic() + seconds
        reservation, wait = self._reserve_before(deadline)
        while wait > 0:
            if time.monotonic() + wait > deadline:
                raise _over_budget(wait)
            time.sleep(wait)
            # Meanwhile a pause may have been added, or the limiter replaced.
            left = self._wait(reservation)
            if left is None:
                reservation, left = self._reserve_before(deadline)
            wait = left
        with self._lock:
            self._reserved = reservation.count - 1
            self._reserved_until = time.monotonic() + LEASE_SECONDS

    def discard(self) -> None:
        """Discard the reserved requests that are not used yet."""
        with self._lock:
            self._reserved = 0

    def _reserve_before(self, deadline: float) -> tuple[Reservation, float]:
        reservation, wait = self._reserve(max(0.0, deadline - time.monotonic()))
        if reservation is None:
            raise _over_budget(wait)
        return reservation, wait

    def _use_reserved(self) -> bool:
        with self._lock:
            if self._reserved and time.monotonic() < self._reserved_until:
                self._reserved -= 1
                return True
            return False


class LocalBudget:
    """The request budget of one process."""

    def __init__(self, requests: int, seconds: float) -> None:
        limiter = RateLimiter(requests, seconds)
        self.acquire = LimiterClient(limiter.reserve, limiter.wait).acquire
        self.pause = limiter.pause
        self.limit = limiter.limit


def _over_budget(wait: float) -> FetchFailed:
    text = f"the request budget allows no request for {wait:.0f} s"
    advice = "the next build tries again (or raise --fetch.rate-limit-wait-seconds)"
    return FetchFailed(FailureKind.DOWNLOAD, f"{text}; {advice}")
