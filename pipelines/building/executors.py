"""Executors run tasks in this process or on Ray. Both give the same results."""

import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Protocol

from core.errors import BadInput
from pipelines.building.build_config import BuildConfig
from pipelines.building.limits.stage_starts import forget_starts, run_announced
from pipelines.building.limits.stuck_tasks import StuckTasks
from pipelines.building.ray_worker import Work, run_on_worker
from pipelines.building.stages.queues import FETCH_QUEUE, RENDER_QUEUE
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.worker_context import WorkerContext
from pipelines.building.tasks import Finished, Task, run_task
from pipelines.ray_session import ray_session
from pipelines.sources import Source

__all__ = ["Executor", "InProcess", "OnRay", "max_in_flight", "may_run", "open_executor"]

_RESOURCES_SECONDS = 5.0
"""Seconds between two queries of the cluster's resources."""
_TASKS_PER_SLOT = 2
"""Tasks in flight per free slot: enough that no worker waits for the driver."""
_SILENT_SECONDS = 25.0
"""Seconds without the end of a task after which the driver says so."""
_REQUEST_SECONDS = 60.0
"""Minimum seconds between two autoscaler requests."""


class Executor(Protocol):
    """The interface of executors. Not thread-safe."""

    def free_slots(self, queue: str) -> int:
        """Return how many more tasks of a queue should be submitted now."""

    def submit(self, task: Task) -> None:
        """Start a task, or queue it."""

    def wait(self, seconds: float) -> list[Finished]:
        """Return the tasks that ended since the last call.

        Waits at most this many seconds for the first of them.
        """

    def waiting_for(self) -> str:
        """Return why no task has ended for a while; an empty string if one has."""

    def close(self) -> None:
        """Cancel all tasks and release every worker, process and connection."""


class InProcess:
    """An executor that runs one task after the other in this process."""

    def __init__(self, config: BuildConfig, source: Source) -> None:
        self._context = WorkerContext(config, source)
        self._queue: deque[Task] = deque()

    def free_slots(self, queue: str) -> int:
        """Return 1 if no task is queued, else 0."""
        return 0 if self._queue else 1

    def submit(self, task: Task) -> None:
        """Queue a task."""
        self._queue.append(task)

    def wait(self, seconds: float) -> list[Finished]:
        """Run the next task to its end, regardless of `seconds`."""
        if not self._queue:
            return []
        task = self._queue.popleft()
        return [Finished(task=task, events=run_task(task, self._context))]

    def waiting_for(self) -> str:
        """Return an empty string: no task waits for other processes."""
        return ""

    def close(self) -> None:
        """End the Blender child and remove the scratch folder."""
        self._context.close()


class OnRay:
    """An executor that runs tasks on a Ray cluster, with a bounded number in flight."""

    def __init__(self, config: BuildConfig, source: Source, work: Work | None = None) -> None:
        """`work` is run on the workers for every task; by default `run_task`."""
        import ray

        self._ray = ray
        queues = STAGES.queues(config)
        self._resources_of = {queue.name: queue.resources(config) for queue in queues}
        self._limits = {queue.name: queue.max_tasks(config) for queue in queues}
        # By default Ray ends a worker, and so its Blender child, after one GPU task: 0 disables it.
        self._remote = ray.remote(max_calls=0)(run_on_worker)
        self._running: dict[Any, Task] = {}
        self._stuck = StuckTasks(
            {
                queue.name: min(
                    stage.max_seconds(config)
                    for stage in STAGES.enabled(config)
                    if stage.queue == queue
                )
                for queue in queues
            }
        )
        self._in_flight: Counter[str] = Counter()
        self._silent_since = time.monotonic()
        """The last end of a task, or the first submission after a time without tasks."""
        self._resources: Mapping[str, float] = {}
        self._free: Mapping[str, float] = {}
        self._resources_at = self._free_at = -math.inf
        self._max_request = config.execution.autoscaler_renders
        self._requested, self._requested_at = 0, -math.inf
        with contextlib.ExitStack() as session:
            session.enter_context(ray_session(config.address))
            session.callback(forget_starts)
            # A driver may have registered additional stages: the workers need them, too.
            self._setup = ray.put((config, source, work or run_announced, STAGES.added))
            if config.address == "local":
                self._require_local_resources()
            if self._max_request:
                # The autoscaler request stays active until it is replaced.
                session.callback(self._request_nodes, 0)
                self._request_nodes(self._max_request)
            self._session = session.pop_all()

    def _require_local_resources(self) -> None:
        """Raise BadInput if a task needs more than this machine has; Ray would wait forever."""
        available = self._ray.cluster_resources()
        for needs in self._resources_of.values():
            for name, amount in needs.items():
                if amount > available.get(name, 0):
                    raise BadInput(
                        f"a task needs {amount:g} {name}, but this machine has "
                        f"{available.get(name, 0):g}: lower --blender.threads or the resources in "
                        "--execution, change --render.device, or join a cluster with --address"
                    )

    def _request_nodes(self, renders: int) -> None:
        """Replace the autoscaler request by one for this many renders."""
        from ray.autoscaler.sdk import request_resources

        self._requested, self._requested_at = renders, time.monotonic()
        request_resources(bundles=[self._resources_of[RENDER_QUEUE.name]] * renders)

    def _lower_request(self) -> None:
        """Lower the autoscaler request once all remaining renders run: idle nodes cost money."""
        if self._max_request and time.monotonic() - self._requested_at >= _REQUEST_SECONDS:
            fetching, rendering = (self._in_flight[q.name] for q in (FETCH_QUEUE, RENDER_QUEUE))
            # The driver fills all free slots. If some stay free, no render is left in the queue.
            is_last = fetching == 0 and self.free_slots(RENDER_QUEUE.name) > 0
            needed = min(rendering if is_last else self._max_request, self._max_request)
            if needed != self._requested:
                # If this fails, the build goes on, and `close` cancels the last request.
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._request_nodes(needed)

    def free_slots(self, queue: str) -> int:
        """Return the number of further tasks of this queue that the cluster can take."""
        resources = self._cluster_resources()
        limit = max_in_flight(resources, self._resources_of[queue], self._limits[queue])
        return limit - self._in_flight[queue]

    def _cluster_resources(self) -> Mapping[str, float]:
        """Return the cluster's resources, queried every few seconds: nodes join and leave."""
        if time.monotonic() - self._resources_at > _RESOURCES_SECONDS:
            self._resources = self._ray.cluster_resources()
            self._resources_at = time.monotonic()
        return self._resources

    def submit(self, task: Task) -> None:
        """Start a task, without Ray's own retries: the build counts the attempts."""
        needs = dict(self._resources_of[task.queue])
        reference = self._remote.options(
            name=f"lrm.{task.queue}",
            num_cpus=needs.pop("CPU"),
            num_gpus=needs.pop("GPU", 0),
            memory=needs.pop("memory", None),
            resources=needs,
            max_retries=0,
            enable_task_events=False,
        ).remote(self._setup, task)
        if not self._running:
            self._silent_since = time.monotonic()
        self._running[reference] = task
        self._stuck.submitted(reference, task.queue)
        self._in_flight[task.queue] += 1

    def wait(self, seconds: float) -> list[Finished]:
        """Return the tasks that ended since the last call; wait at most `seconds` for the first."""
        self._lower_request()
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if ready:
            more, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            ready = list(dict.fromkeys([*ready, *more]))
        finished = [self._collect(reference) for reference in ready]
        return finished + [self._give_up(reference) for reference in self._stuck.given_up()]

    def waiting_for(self) -> str:
        """Return that no task has ended for a while, and what the tasks wait for if none can run.

        The driver does not know which tasks have started, but a task that runs holds its resources.
        """
        queues = [name for name, number in self._in_flight.items() if number]
        silent = time.monotonic() - self._silent_since
        if not queues or silent < _SILENT_SECONDS:
            return ""
        total, free = self._cluster_resources(), self._free_resources()
        if any(may_run(total, free, self._resources_of[queue]) for queue in queues):
            return f"no task has ended for {silent:.0f} seconds"
        needs = [
            f"{amount:g} {name} ({free.get(name, 0):g} of {total.get(name, 0):g} free)"
            for name, amount in self._resources_of[queues[0]].items()
        ]
        return f"waiting for the cluster: a {queues[0]} task needs {', '.join(needs)}"

    def _free_resources(self) -> Mapping[str, float]:
        """Return the resources that no task holds, queried every few seconds."""
        if time.monotonic() - self._free_at > _RESOURCES_SECONDS:
            self._free = self._ray.available_resources()
            self._free_at = time.monotonic()
        return self._free

    def _collect(self, reference: Any) -> Finished:
        task = self._running.pop(reference)
        self._in_flight[task.queue] -= 1
        self._silent_since = time.monotonic()
        try:
            events = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or ["no message"]
            reason = f"{type(error).__name__}: {lines[-1]}"
            stuck_in = self._stuck.forget_lost(reference)
            return Finished(task=task, lost=reason, stuck_in=stuck_in)
        self._stuck.forget(reference)
        return Finished(task=task, events=events)

    def _give_up(self, reference: Any) -> Finished:
        """Return a task as lost although its worker, which hangs, still holds its resources."""
        task = self._running.pop(reference)
        self._in_flight[task.queue] -= 1
        stuck_in = self._stuck.forget(reference)
        return Finished(task=task, lost="the worker hangs and cannot be ended", stuck_in=stuck_in)

    def close(self) -> None:
        """Cancel the autoscaler request and disconnect; a Ray that was started here ends."""
        self._session.close()


def open_executor(config: BuildConfig, source: Source) -> Executor:
    """Return the executor for the address in the configuration. Raises BadInput."""
    return InProcess(config, source) if config.address == "none" else OnRay(config, source)


def max_in_flight(
    resources: Mapping[str, float], needs: Mapping[str, float], limit: int | None
) -> int:
    """Return how many tasks that each reserve `needs` may be in flight on a cluster.

    `limit` is the maximum number of tasks of their queue; None means no limit.
    """
    slots = min(resources.get(name, 0) / amount for name, amount in needs.items())
    tasks = max(1, int(slots)) * _TASKS_PER_SLOT
    return tasks if limit is None else min(tasks, limit)


def may_run(
    total: Mapping[str, float], free: Mapping[str, float], needs: Mapping[str, float]
) -> bool:
    """Return whether the used resources of a cluster allow that a task with these needs runs.

    Other programs may hold them, too.
    """
    used = {name: total.get(name, 0) - free.get(name, 0) for name in needs}
    # Sums of fractions are not exact.
    return all(used[name] >= 0.99 * amount for name, amount in needs.items())
