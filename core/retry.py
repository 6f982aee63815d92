"""Retries of work that fails for a while: the waits, and the two loops that use them."""

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
    """Exponential waits between attempts: they double, have a bound, and are partly random.

    The random part keeps clients that failed together from coming back together.
    """

    first_seconds: float
    """Wait after the first failure."""
    max_seconds: float = math.inf
    """Upper bound of a wait."""
    jitter: float = 0.0
    """Random part of a wait, 0 to 1. With 1, a wait is uniform between 0 and its bound."""

    def seconds(self, failures: int, generator: random.Random | None = None) -> float:
        """Return the wait after this many failures in a row (at least 1), in seconds.

        Without a generator the draw has no seed: when to try again is no part of any result.
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
    """Return what `work` returns, tried again while it raises an error that may pass.

    `wait` receives the number of failures and returns seconds, as `Backoff.seconds` does.
    `before_wait` receives the number of failures, the last error and the wait in seconds. Raises
    the error of the last attempt, and one that is not transient at once.
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
    """Return what `work` returns, tried again while it returns a failure that may pass.

    For work that reports failures in its result. `wait` receives the number of failures and the
    last result, and returns seconds. The last attempt's result is returned whatever it is.
    """
    for failures in range(1, attempts):
        result = work()
        if not is_transient(result):
            return result
        time.sleep(wait(failures, result))
    return work()
