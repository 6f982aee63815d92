"""Where tasks run: in this process, or on Ray. Both do the same tasks and give the same results."""

import contextlib
import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.errors import BadInput
from dataset.catalog.event_log import Event
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import ObjectState
from pipelines.building.stages import Workshop, advance, pack
from pipelines.ray_session import start_ray
from pipelines.sources import Source, is_hub

__all__ = [
    "Executor",
    "Finished",
    "InProcess",
    "OnRay",
    "Task",
    "bounds_of",
    "most_in_flight",
    "needs_of",
    "open_executor",
]

_RESOURCES_SECONDS = 5.0
_QUEUED_PER_SLOT = 2
"""Tasks in flight per slot: enough that no worker waits for the driver."""
_WISH_SECONDS = 60.0
"""At most so often the autoscaler is told another number of renders."""
LANES = ("pack", "render", "fetch")
"""In the order of urgency: what frees space first."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of work: the stages of a lane for one object, or a shard of several."""

    lane: str
    states: tuple[ObjectState, ...]
    attempt: int = 1


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A task that ended: with events, or with the loss of its worker."""

    task: Task
    events: Sequence[Event] = ()
    lost: str = ""
    """Why the worker was lost; empty if it was not."""


class Executor(Protocol):
    """Runs tasks. One thread uses it."""

    def room(self, lane: str) -> int:
        """How many more tasks of a lane should be submitted now."""

    def submit(self, task: Task) -> None:
        """Start a task, or queue it."""

    def wait(self, seconds: float) -> list[Finished]:
        """Tasks that ended since the last call; waits for the first of them at most so long."""

    def close(self) -> None:
        """Stop all work and end everything that was started."""


def run_task(task: Task, shop: Workshop) -> list[Event]:
    """Do a task."""
    if task.lane == "pack":
        return pack(task.states, shop)
    return [event for state in task.states for event in advance(state, task.lane, shop)]


Work = Callable[[Task, Workshop], list[Event]]


class InProcess:
    """Runs one task after the other in this process."""

    def __init__(self, config: BuildConfig, source: Source) -> None:
        self._shop = Workshop(config, source)
        self._queue: deque[Task] = deque()

    def room(self, lane: str) -> int:
        """One: what is submitted runs at the next wait."""
        return 0 if self._queue else 1

    def submit(self, task: Task) -> None:
        """Queue a task."""
        self._queue.append(task)

    def wait(self, seconds: float) -> list[Finished]:
        """Do the next task, however long it takes."""
        if not self._queue:
            return []
        task = self._queue.popleft()
        return [Finished(task=task, events=run_task(task, self._shop))]

    def close(self) -> None:
        """End the Blender child."""
        self._shop.close()


class OnRay:
    """Runs tasks on a Ray cluster, a bounded number of them in flight."""

    def __init__(self, config: BuildConfig, source: Source, work: Work | None = None) -> None:
        """`work` does a task on a worker; by default `run_task`."""
        import ray

        self._ray = ray
        start_ray(config.address)
        self._setup = ray.put((config, source, work or run_task))
        self._needs = {lane: needs_of(config, lane) for lane in LANES}
        self._bounds = bounds_of(config)
        # Without a bound of calls: by default a GPU task ends its worker, and so the Blender child.
        self._remote = ray.remote(max_calls=0)(_run_on_worker)
        self._running: dict[Any, Task] = {}
        self._in_flight: Counter[str] = Counter()
        self._found: Mapping[str, float] = {}
        self._asked = -math.inf
        self._wishes = config.execution.ask_for_renders
        self._wished, self._wished_at = 0, -math.inf
        if config.address == "local":
            self._require_room_here()
        try:
            if self._wishes:
                self._wish(self._wishes)
        except BaseException:
            # Nobody else would end it: a wish stands until somebody has another one.
            self.close()
            raise

    def _require_room_here(self) -> None:
        """Nobody will bring more cores or GPUs to this machine: such work would wait for ever."""
        found = self._ray.cluster_resources()
        for needs in self._needs.values():
            for name, amount in needs.items():
                if amount > found.get(name, 0):
                    self.close()
                    raise BadInput(
                        f"a task asks for {amount:g} {name}, this machine has "
                        f"{found.get(name, 0):g}; see --blender.threads, --render.device, "
                        "--execution and --address"
                    )

    def _wish(self, renders: int) -> None:
        """Ask the autoscaler for room for so many renders, instead of what was asked before."""
        from ray.autoscaler.sdk import request_resources

        self._wished, self._wished_at = renders, time.monotonic()
        request_resources(bundles=[self._needs["render"]] * renders)

    def _wish_again(self) -> None:
        """When all renders that are left are in flight, ask for no more: idle nodes cost money."""
        if self._wishes and time.monotonic() - self._wished_at >= _WISH_SECONDS:
            # Whoever submits fills all room that there is.
            at_the_end = self._in_flight["fetch"] == 0 and self.room("render") > 0
            left = self._in_flight["render"] if at_the_end else self._wishes
            if min(left, self._wishes) != self._wished:
                # The build does without; close takes back whatever stands.
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._wish(min(left, self._wishes))

    def room(self, lane: str) -> int:
        """Slots of the cluster for this lane, times the queue, less what is in flight."""
        most = most_in_flight(self._resources(), self._needs[lane], self._bounds.get(lane))
        return most - self._in_flight[lane]

    def _resources(self) -> Mapping[str, float]:
        """Of the cluster, asked for every few seconds: nodes come and go."""
        if time.monotonic() - self._asked > _RESOURCES_SECONDS:
            self._found, self._asked = self._ray.cluster_resources(), time.monotonic()
        return self._found

    def submit(self, task: Task) -> None:
        """Start a task; Ray itself never repeats one, so that attempts are counted in one place."""
        needs = dict(self._needs[task.lane])
        reference = self._remote.options(
            name=f"lrm.{task.lane}",
            num_cpus=needs.pop("CPU"),
            num_gpus=needs.pop("GPU", 0),
            memory=needs.pop("memory", None),
            resources=needs,
            max_retries=0,
            enable_task_events=False,
        ).remote(self._setup, task)
        self._running[reference] = task
        self._in_flight[task.lane] += 1

    def wait(self, seconds: float) -> list[Finished]:
        """Tasks that ended since the last call."""
        self._wish_again()
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        if ready:
            more, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            ready = list(dict.fromkeys([*ready, *more]))
        return [self._collect(reference) for reference in ready]

    def _collect(self, reference: Any) -> Finished:
        task = self._running.pop(reference)
        self._in_flight[task.lane] -= 1
        try:
            return Finished(task=task, events=self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            return Finished(task=task, lost=f"{type(error).__name__}: {reason}")

    def close(self) -> None:
        """Leave the cluster and no wish; one that was started here ends, with all its workers."""
        try:
            if self._wishes:
                self._wish(0)
        finally:
            self._ray.shutdown()


def open_executor(config: BuildConfig, source: Source) -> Executor:
    """The executor that the configuration's address names. Raises BadInput."""
    return InProcess(config, source) if config.address == "none" else OnRay(config, source)


def most_in_flight(
    resources: Mapping[str, float], needs: Mapping[str, float], bound: int | None
) -> int:
    """How many tasks that each need this much may be in flight on a cluster with these resources.

    `bound` is the limit of their lane, None if it has none.
    """
    slots = min(resources.get(name, 0) / amount for name, amount in needs.items())
    wanted = max(1, int(slots)) * _QUEUED_PER_SLOT
    return wanted if bound is None else min(wanted, bound)


def needs_of(config: BuildConfig, lane: str) -> dict[str, float]:
    """What a task of a lane reserves, by Ray's names."""
    execution = config.execution
    if lane == "fetch":
        return {"CPU": execution.fetch_cpus, **execution.fetch_resources}
    if lane == "pack":
        return {"CPU": 1.0, **execution.pack_resources}
    found = {"CPU": float(config.blender.threads), **execution.render_resources}
    if config.render.device == "gpu":
        found["GPU"] = execution.render_gpus
    if execution.render_memory:
        found["memory"] = execution.render_memory
    return found


def bounds_of(config: BuildConfig) -> dict[str, int]:
    """The most tasks of a lane in flight, whatever the cluster has room for.

    A hub allows so many requests and no more: further downloads would only wait, until their
    patience ends.
    """
    return {"fetch": config.fetch.in_flight(os.cpu_count() or 1)} if is_hub(config.source) else {}


class _Shops:
    """The workshops of a Ray worker process: one per build, kept between tasks."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._shop: Workshop | None = None

    def get(self, config: BuildConfig, source: Source) -> Workshop:
        """This build's workshop; another build's is closed first."""
        key = config.digest()
        if self._shop is None or self._key != key:
            if self._shop is not None:
                self._shop.close()
            self._shop, self._key = Workshop(config, source), key
        return self._shop


_SHOPS = _Shops()


def _run_on_worker(setup: tuple[BuildConfig, Source, Work], task: Task) -> list[Event]:
    config, source, work = setup
    return work(task, _SHOPS.get(config, source))
