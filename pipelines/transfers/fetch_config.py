"""The limits of a download, and the request budget."""

from core.config import Config, PositiveInt, Seconds

__all__ = ["REQUESTS", "FetchConfig"]

_QUEUE_SECONDS = 600.0
"""Seconds of the request budget that the fetches in flight may reserve. That keeps all workers
busy; a killed build delays the next one by at most this long."""
REQUESTS = 3000
"""Requests per window without a token; `in_flight` assumes this number with a token, too."""


class FetchConfig(Config):
    """Downloads from the hub. No setting here changes a byte of the result."""

    connect_seconds: Seconds = 10.0
    """Time limit for opening a connection, in seconds."""
    stall_seconds: Seconds = 30.0
    """Maximum time without a byte on an open connection, in seconds."""
    total_seconds: Seconds = 1800.0
    """Time limit for one file with all retries, in seconds; waits for the request budget are not
    counted."""
    attempts: PositiveInt = 5
    """A download fails after this many requests in a row without progress, or after this many
    complete files with wrong bytes."""
    backoff_seconds: Seconds = 1.0
    """Upper bound of the random wait before the first retry, in seconds; every retry doubles it."""
    max_backoff_seconds: Seconds = 60.0
    """Maximum wait before a retry, in seconds."""
    rate_limit_wait_seconds: Seconds = 3600.0
    """Maximum wait for the request budget, in seconds."""
    requests: PositiveInt | None = None
    """Requests that the whole cluster may send per window; by default 3000, or 5000 with a
    token."""
    window_seconds: Seconds = 300.0
    """Length of the window of `requests`, in seconds."""
    partial_folder: str | None = None
    """Local folder for the bytes of interrupted downloads; by default in the temporary folder."""

    def in_flight(self, machine_cores: int) -> int:
        """Return how many fetches may run or wait for the request budget at the same time.

        With this many, each gets a request within `rate_limit_wait_seconds`. The result is at least
        `machine_cores`, the cores of one machine, so that slow downloads run in parallel.
        """
        rate = (self.requests or REQUESTS) / self.window_seconds
        seconds = min(_QUEUE_SECONDS, self.rate_limit_wait_seconds / 2)
        return max(machine_cores, int(rate * seconds))
