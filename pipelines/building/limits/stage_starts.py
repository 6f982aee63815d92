"""What the tasks of a Ray cluster are doing, for a driver whose tasks take too long.

A worker stores the start of every attempt at a stage under its task's id in Ray's key-value store.
The driver reads the entries of tasks that are lost or late only. The time in Ray's queue does not
count.
"""

import contextlib
import json
import time
from dataclasses import asdict, dataclass

from dataset.catalog.event_log import Event
from pipelines.building.stages.time_limit import margin
from pipelines.building.stages.worker_context import StageStart, WorkerContext
from pipelines.building.tasks import Task, run_task

__all__ = ["RunningStage", "forget_starts", "run_announced", "running_stage"]

_NAMESPACE = b"lrm-stage-starts"


@dataclass(frozen=True, kw_only=True)
class RunningStage:
    """The last attempt that a task of Ray has started."""

    start: StageStart
    seconds: float
    """The time since its start, by the clocks of the two machines."""

    @property
    def is_late(self) -> bool:
        """Whether its limit has passed."""
        return self.seconds > self.start.max_seconds

    @property
    def is_stuck(self) -> bool:
        """Whether the worker should have ended it, or itself, some time ago."""
        return self.seconds > self.start.max_seconds + 2 * margin(self.start.max_seconds)


def run_announced(task: Task, context: WorkerContext) -> list[Event]:
    """Run a task in a worker, which stores the start of every attempt until the task has ended."""
    try:
        return run_task(task, context, announce=_announce_start)
    finally:
        with contextlib.suppress(Exception):
            _delete(_key_of(_this_task()))


def _announce_start(start: StageStart) -> None:
    from ray.experimental.internal_kv import _internal_kv_put

    # The work does not depend on it: without an entry, only this task's limit is not enforced.
    with contextlib.suppress(Exception):
        value = json.dumps({"began": time.time(), "start": asdict(start)}).encode()
        _internal_kv_put(_key_of(_this_task()), value, overwrite=True, namespace=_NAMESPACE)


def running_stage(task_id: str) -> RunningStage | None:
    """Return the last attempt that a task, by Ray's id, has started; None if it does not run."""
    from ray.experimental.internal_kv import _internal_kv_get

    value = _internal_kv_get(_key_of(task_id), namespace=_NAMESPACE)
    if value is None:
        return None
    entry = json.loads(value)
    events = tuple(Event(**event) for event in entry["start"].pop("events"))
    start = StageStart(events=events, **entry["start"])
    return RunningStage(start=start, seconds=time.time() - entry["began"])


def forget_starts() -> None:
    """Delete the entries of this driver's tasks: those of lost workers are left."""
    with contextlib.suppress(Exception):  # the cluster may be gone
        _delete(_key_of(""), by_prefix=True)


def _this_task() -> str:
    import ray

    return str(ray.get_runtime_context().get_task_id())


def _key_of(task_id: str) -> bytes:
    import ray

    return f"{ray.get_runtime_context().get_job_id()}/{task_id}".encode()


def _delete(key: bytes, *, by_prefix: bool = False) -> None:
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(key, del_by_prefix=by_prefix, namespace=_NAMESPACE)
