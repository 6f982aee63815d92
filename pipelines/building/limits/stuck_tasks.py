"""The last measure against tasks of Ray that hang: the driver cancels them, or gives them up."""

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any

from pipelines.building.limits.stage_starts import RunningStage, running_stage
from pipelines.building.stages.time_limit import margin
from pipelines.building.stages.worker_context import StageStart

__all__ = ["StuckTasks"]

_CHECK_SECONDS = 5.0
"""Minimum seconds between two checks."""
_CHECK_SHARE = 0.02
"""Maximum share of the driver's time for checks."""


class StuckTasks:
    """Ends the tasks that run longer than their stage may, although their worker should have.

    A worker ends its own work in time. It cannot if it is stopped, or if its machine hangs.
    """

    def __init__(self, min_seconds: Mapping[str, float]) -> None:
        """`min_seconds` has the shortest limit of the stages of each queue."""
        self._min_seconds = min_seconds
        self._may_be_late: dict[Any, float] = {}
        """The time from which on a task may be late, by its reference in Ray."""
        self._cancelled: dict[Any, RunningStage] = {}
        self._next_check = -math.inf

    def submitted(self, reference: Any, queue: str) -> None:
        """Remember a task that was submitted now."""
        self._may_be_late[reference] = time.monotonic() + self._min_seconds[queue]

    def forget(self, reference: Any) -> StageStart | None:
        """Forget a task."""
        self._may_be_late.pop(reference, None)
        cancelled = self._cancelled.pop(reference, None)
        return None if cancelled is None else cancelled.start

    def forget_lost(self, reference: Any) -> StageStart | None:
        """Forget a task whose worker was lost; return its stage if that took too long."""
        stuck_in = self.forget(reference)
        if stuck_in is None:
            running = running_stage(_task_id(reference))
            stuck_in = running.start if running is not None and running.is_late else None
        return stuck_in

    def given_up(self) -> list[Any]:
        """Cancel the tasks that are stuck. Returns those that did not end after that."""
        import ray

        now = time.monotonic()
        if now < self._next_check:
            return []
        late = [ref for ref, since in self._may_be_late.items() if now > since]
        given_up = []
        for reference in late:
            running = running_stage(_task_id(reference))
            if running is None or not running.is_stuck:
                continue
            before = self._cancelled.get(reference)
            if before is None or before.start != running.start:
                self._cancelled[reference] = running
                with contextlib.suppress(ray.exceptions.RayError, ValueError):
                    ray.cancel(reference, force=True)
            elif running.seconds > before.seconds + margin(running.start.max_seconds):
                given_up.append(reference)
        self._next_check = time.monotonic() + max(
            _CHECK_SECONDS, (time.monotonic() - now) / _CHECK_SHARE
        )
        return given_up


def _task_id(reference: Any) -> str:
    return str(reference.task_id().hex())
