"""The limits of a transfer and the request budget."""

from pydantic import PositiveFloat, PositiveInt

from core.config import Config

__all__ = ["REQUESTS", "FetchConfig"]

_QUEUE_SECONDS = 600.0
"""Seconds of the budget that fetches in flight may reserve: enough to keep all workers busy, and a
build that was killed delays the next one by no more."""
REQUESTS = 3000
"""Requests per window without a token; `in_flight` assumes it also with one."""


class FetchConfig(Config):
    """How files are downloaded from the hub; no setting changes a byte of the result."""

    connect_seconds: PositiveFloat = 10.0
    """Longest time to connect."""
    stall_seconds: PositiveFloat = 30.0
    """Longest silence of a connection."""
    total_seconds: PositiveFloat = 1800.0
    """Longest transfer of one file with all its retries; waiting for the budget does not count."""
    attempts: PositiveInt = 5
    """Requests in a row that bring nothing new, or whole files with wrong bytes, until it fails."""
    backoff_seconds: PositiveFloat = 1.0
    """Bound of the random wait before the first retry; it doubles with each one."""
    max_backoff_seconds: PositiveFloat = 60.0
    """Largest bound of that wait."""
    wait_seconds: PositiveFloat = 3600.0
    """Longest wait for the request budget."""
    requests: PositiveInt | None = None
    """Requests of the whole cluster in any window; by default 3000, or 5000 with a token."""
    window_seconds: PositiveFloat = 300.0
    """Length of that window."""
    parts: str | None = None
    """Local folder for what has come of interrupted transfers; by default in the temporary one."""

    def in_flight(self, machine_cores: int) -> int:
        """Return how many fetches may run or wait for the budget at once.

        Each then gets a request within `wait_seconds`. At least the cores of one machine, so that
        slow transfers run in parallel.
        """
        rate = (self.requests or REQUESTS) / self.window_seconds
        seconds = min(_QUEUE_SECONDS, self.wait_seconds / 2)
        return max(machine_cores, int(rate * seconds))
