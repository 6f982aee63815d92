"""What each worker of a Ray cluster is doing, for a driver whose tasks take too long.

A worker stores the start of every attempt at a stage under its own name in Ray's key-value store.
The driver reads that only for tasks that are lost or late, so it costs nothing otherwise. The time
in Ray's queue does not count.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from dataset.catalog.event_log import Event
from pipelines.building.stages.time_limit import margin
from pipelines.building.stages.worker_context import StageStart

__all__ = ["RunningStage", "announce_start", "forget_starts", "running_stages"]

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


def announce_start(start: StageStart) -> None:
    """Store the start of an attempt, in a worker."""
    import ray
    from ray.experimental.internal_kv import _internal_kv_put

    context = ray.get_runtime_context()
    key = f"{context.get_job_id()}/{context.get_worker_id()}".encode()
    entry = {"task": context.get_task_id(), "began": time.time(), "start": asdict(start)}
    # The work does not depend on it: without an entry, only this task's limit is not enforced.
    with contextlib.suppress(Exception):
        value = json.dumps(entry).encode()
        _internal_kv_put(key, value, overwrite=True, namespace=_NAMESPACE)


def running_stages() -> dict[str, RunningStage]:
    """Return the last attempt of each task that a worker of this driver runs, by Ray's task id."""
    return dict(_read_starts())


def _read_starts() -> Iterator[tuple[str, RunningStage]]:
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

    for key in _internal_kv_list(_job_prefix(), namespace=_NAMESPACE):
        value = _internal_kv_get(key, namespace=_NAMESPACE)
        if value is not None:
            entry = json.loads(value)
            events = tuple(Event(**event) for event in entry["start"].pop("events"))
            start = StageStart(events=events, **entry["start"])
            yield entry["task"], RunningStage(start=start, seconds=time.time() - entry["began"])


def forget_starts() -> None:
    """Delete the entries of this driver's workers."""
    from ray.experimental.internal_kv import _internal_kv_del

    with contextlib.suppress(Exception):  # the cluster may be gone
        _internal_kv_del(_job_prefix(), del_by_prefix=True, namespace=_NAMESPACE)


def _job_prefix() -> bytes:
    import ray

    return f"{ray.get_runtime_context().get_job_id()}/".encode()
