"""One request budget for all workers of a Ray cluster: a rate limiter in a named actor."""

import hashlib
from typing import Any

from core.errors import first_line
from core.failures import FailureKind
from core.retry import Backoff, retry
from pipelines.transfers.budget import (
    LEASE_SECONDS,
    LimiterClient,
    LocalBudget,
    RateLimiter,
    RequestBudget,
    Reservation,
)
from pipelines.transfers.outcome import FetchFailed

__all__ = ["ClusterBudget", "open_budget"]

_NAMESPACE = "lrm-requests-3"
"""Increase the number when methods or results of the limiter change: an old actor may still run."""
_ANSWER_SECONDS = 20.0
"""Time limit of one call of the actor."""
_ATTEMPTS = 6
_BACKOFF = Backoff(first_seconds=0.4, jitter=0.5)
"""Long enough for Ray to free the name of a lost actor."""


def open_budget(server: str, requests: int, seconds: float) -> RequestBudget:
    """Return the budget for requests to a server: the cluster's if Ray runs, else a local one."""
    import ray

    if ray.is_initialized():
        return ClusterBudget(server, requests, seconds)
    return LocalBudget(requests, seconds)


class ClusterBudget:
    """A worker's client of the cluster's budget.

    The actor is detached, so all builds on a cluster share it; the build that connected last sets
    the size of the budget. If the actor is lost, the next call starts a new one.
    """

    def __init__(self, server: str, requests: int, seconds: float) -> None:
        self._name = f"requests-{hashlib.sha256(server.encode()).hexdigest()[:16]}"
        self._size = (requests, seconds)
        self._actor: Any = None
        self._client = LimiterClient(self._reserve, self._wait)

    def acquire(self, seconds: float) -> None:
        """Wait at most `seconds` until a request may be sent.

        Raises FetchFailed (download), also if the actor cannot be reached.
        """
        self._client.acquire(seconds)

    def pause(self, seconds: float) -> None:
        """Pause all workers of the cluster. Raises FetchFailed (download)."""
        self._client.discard()
        self._call("pause", seconds)

    def limit(self, requests: int, seconds: float) -> None:
        """Apply the server's own limit in the whole cluster. Raises FetchFailed (download)."""
        self._call("limit", requests, seconds)

    def _reserve(self, max_wait: float) -> tuple[Reservation | None, float]:
        reservation, wait = self._call("reserve", max_wait)
        return reservation, wait

    def _wait(self, reservation: Reservation) -> float | None:
        wait: float | None = self._call("wait", reservation)
        return wait

    def _call(self, method: str, *values: Any) -> Any:
        import ray

        lost = (ray.exceptions.RayError, ValueError)
        try:
            return retry(
                lambda: ray.get(
                    getattr(self._connect(), method).remote(*values), timeout=_ANSWER_SECONDS
                ),
                attempts=_ATTEMPTS,
                wait=_BACKOFF.seconds,
                is_transient=lambda error: isinstance(error, lost),
                before_wait=lambda *_: self._disconnect(),
            )
        except lost as error:
            self._disconnect()
            problem = f"{type(error).__name__}: {first_line(error)}"
        raise FetchFailed(
            FailureKind.DOWNLOAD,
            f"the actor of the cluster's request budget cannot be reached: {problem}",
        )

    def _disconnect(self) -> None:
        self._actor = None

    def _connect(self) -> Any:
        import ray

        if self._actor is None:
            self._actor = (
                ray.remote(RateLimiter)
                .options(
                    name=self._name,
                    namespace=_NAMESPACE,
                    get_if_exists=True,
                    lifetime="detached",
                    num_cpus=0,
                    max_restarts=-1,
                )
                .remote(*self._size, LEASE_SECONDS)
            )
            ray.get(self._actor.configure.remote(*self._size), timeout=_ANSWER_SECONDS)
        return self._actor
