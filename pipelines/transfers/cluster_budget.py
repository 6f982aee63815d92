"""One request budget for all workers of a Ray cluster: a ledger in a named actor."""

import hashlib
from typing import Any

from core.retry import Backoff, retry
from pipelines.transfers.budget import (
    LEASE_SECONDS,
    Ledger,
    LocalBudget,
    RequestBudget,
    Taker,
    Turn,
)
from pipelines.transfers.outcome import FetchFailed

__all__ = ["ClusterBudget", "open_budget"]

_NAMESPACE = "lrm-requests-2"
"""Another number when the ledger answers to other calls: the actor outlives an upgrade."""
_ANSWER_SECONDS = 20.0
_ATTEMPTS = 6
_BACKOFF = Backoff(first_seconds=0.4, jitter=0.5)
"""Long enough that the name is no longer that of the lost actor."""


def open_budget(server: str, requests: int, seconds: float) -> RequestBudget:
    """The budget for requests to a server: the cluster's inside Ray, else this process's."""
    import ray

    if ray.is_initialized():
        return ClusterBudget(server, requests, seconds)
    return LocalBudget(requests, seconds)


class ClusterBudget:
    """A worker's way to the cluster's budget.

    The actor belongs to no job, so several builds on a cluster share it; the last one to come says
    how large the budget is. If it is lost, the next caller starts another.
    """

    def __init__(self, server: str, requests: int, seconds: float) -> None:
        self._name = f"requests-{hashlib.sha256(server.encode()).hexdigest()[:16]}"
        self._size = (requests, seconds)
        self._actor: Any = None
        self._taker = Taker(self._reserve, self._wait)

    def take(self, seconds: float) -> None:
        """Wait until a request may be sent. Raises FetchFailed(download) after so many seconds,
        or if the actor cannot be reached."""
        self._taker.take(seconds)

    def pause(self, seconds: float) -> None:
        """Hold all workers of the cluster. Raises FetchFailed(download)."""
        self._taker.drop()
        self._call("pause", seconds)

    def limit(self, requests: int, seconds: float) -> None:
        """Tell the cluster what the server allows. Raises FetchFailed(download)."""
        self._call("limit", requests, seconds)

    def _reserve(self, patience: float) -> tuple[Turn | None, float]:
        turn, wait = self._call("reserve", patience)
        return turn, wait

    def _wait(self, turn: Turn) -> float | None:
        wait: float | None = self._call("wait", turn)
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
            problem = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise FetchFailed("download", f"the cluster's request budget does not answer: {problem}")

    def _disconnect(self) -> None:
        self._actor = None

    def _connect(self) -> Any:
        import ray

        if self._actor is None:
            self._actor = (
                ray.remote(Ledger)
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
