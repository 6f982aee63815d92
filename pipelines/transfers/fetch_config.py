"""The limits of a transfer and the request budget."""

from typing import Annotated

from pydantic import Field, PositiveInt

from core.config import Config

__all__ = ["REQUESTS", "FetchConfig", "Seconds"]

Seconds = Annotated[float, Field(gt=0)]
_QUEUE_SECONDS = 600.0
"""Of waiting for the budget: what may be in flight at a time. It keeps everybody busy, and a build
that is killed leaves the next one no longer queue than this."""
REQUESTS = 3000
"""In a window, without a token. With one the queue is shorter than it might be, and long enough."""


class FetchConfig(Config):
    """How files come from the hub; nothing here changes a byte of the result."""

    connect_seconds: Seconds = 10.0
    """Longest time to connect."""
    stall_seconds: Seconds = 30.0
    """Longest silence of a connection."""
    total_seconds: Seconds = 1800.0
    """Longest transfer of one file with all its retries; waiting for the budget does not count."""
    attempts: PositiveInt = 5
    """Requests in a row that bring nothing new, or whole files with wrong bytes, until it fails."""
    backoff_seconds: Seconds = 1.0
    """Bound of the random wait before the first retry; it doubles with each one."""
    max_backoff_seconds: Seconds = 60.0
    """Largest bound of that wait."""
    wait_seconds: Seconds = 3600.0
    """Longest wait for the request budget."""
    requests: PositiveInt | None = None
    """Requests of the whole cluster in any window; by default 3000, or 5000 with a token."""
    window_seconds: Seconds = 300.0
    """Length of that window."""
    parts: str | None = None
    """Local folder for what has come of interrupted transfers; by default in the temporary one."""

    def in_flight(self, machine_cores: int) -> int:
        """The fetches that may wait for the budget at a time: each has its turn in good time.

        At least as many as one machine has cores, so that slow transfers do not go one by one.
        """
        rate = (self.requests or REQUESTS) / self.window_seconds
        seconds = min(_QUEUE_SECONDS, self.wait_seconds / 2)
        return max(machine_cores, int(rate * seconds))
