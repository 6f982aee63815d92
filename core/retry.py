"""Retries of transient failures: the backoff, and two loops that use it."""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Backoff", "retry", "retry_result"]

T = TypeVar("T")

_MAX_DOUBLINGS = 30
"""Keeps the product finite after any number of failures."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential backoff: the wait doubles with each failure, up to a bound, with jitter.

    The jitter keeps clients that failed together from retrying together.
    """

    first_seconds: float
    """Wait after the first failure, in seconds."""
    max_seconds: float = math.inf
    """Upper bound of a wait, in seconds."""
    jitter: float = 0.0
    """Random fraction of a wait, 0 to 1. With 1, a wait is uniform between 0 and its bound."""

    def seconds(self, failures: int, generator: random.Random | None = None) -> float:
        """Return the wait in seconds after this many consecutive failures (at least 1).

        Without a generator the draw is not seeded: the time of a retry is no part of any result.
        """
        bound = min(self.first_seconds * 2 ** min(failures - 1, _MAX_DOUBLINGS), self.max_seconds)
        draw = random.uniform if generator is None else generator.uniform
        return draw(1 - self.jitter, 1) * bound


def retry(
    work: Callable[[], T],
    *,
    attempts: int,
    wait: Callable[[int], float],
    is_transient: Callable[[Exception], bool],
    before_wait: Callable[[int, Exception, float], None] = lambda *_: None,
) -> T:
    """Return the result of `work`, which is retried while it raises a transient error.

    `wait` receives the number of failures and returns seconds, as `Backoff.seconds` does.
    `before_wait` receives the number of failures, the last error and the wait in seconds. Raises
    the error of the last attempt, or the first error that is not transient.
    """
    for failures in range(1, attempts):
        try:
            return work()
        except Exception as error:
            if not is_transient(error):
                raise
            seconds = wait(failures)
            before_wait(failures, error, seconds)
        time.sleep(seconds)
    return work()


def retry_result(
    work: Callable[[], T],
    *,
    attempts: int,
    is_transient: Callable[[T], bool],
    wait: Callable[[int, T], float],
) -> T:
    """Return the result of `work`, which is retried while it returns a transient failure.

    This is for work that reports failures in its result. `wait` receives the number of failures and
    the last result, and returns seconds. The result of the last attempt is returned in any case.
    """
    for failures in range(1, attempts):
        result = work()
        if not is_transient(result):
            return result
        time.sleep(wait(failures, result))
    return work()
