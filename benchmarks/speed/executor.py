"""How many tasks a second the driver of a build gets through, and what it keeps of them.

`python -m benchmarks executor` builds 100,000 objects on a local Ray, with everything that a build
does but the work itself: each object is submitted, decided on and committed; the worker returns an
event at once. `--without-ray` leaves Ray out: what remains is the driver's own. `--slots` keeps as
many tasks in flight as a cluster with so many slots would. docs/notes/scale.md holds a run's
figures.
"""

import argparse
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np
import psutil

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.speed.catalog import Tables, write_source
from core.failures import FailureKind
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.root import write_build
from filters.chain import FilterConfig
from filters.provenance import LowPolyConfig
from pipelines.building.build_config import BuildConfig
from pipelines.building.committer import Committer
from pipelines.building.executors import Executor, OnRay
from pipelines.building.object_table import latest_of
from pipelines.building.plan import load_plan
from pipelines.building.progress import Progress
from pipelines.building.run import Build
from pipelines.building.stages.fetch import FETCH
from pipelines.building.stages.worker_context import WorkerContext
from pipelines.building.tasks import Finished, Task


def main() -> None:
    """Build, and print rate and memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument("--slots", type=int, help="as if the cluster had so many [those it has]")
    add_figures(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_source(Path(folder), args.objects)
        rate = measure(Path(folder), args.without_ray, args.slots)
    where = "driver without Ray" if args.without_ray else "driver on Ray"
    in_flight = f", {args.slots:,} slots" if args.slots else ""
    write_figures(args.figures, [Figure(f"{where}{in_flight}", rate, "tasks/s")])


def measure(folder: Path, without_ray: bool, slots: int | None) -> float:
    """One build; its tasks per second."""
    config = BuildConfig(
        source=str(folder / "source"),
        captions=str(folder / "captions.csv"),
        root=str(folder / "root"),
        filters=FilterConfig(lowpoly=LowPolyConfig(enabled=False)),
    ).checked()
    source, root = Tables(folder), Storage(config.root)
    catalog = Catalog(root)
    latest = latest_of(root, catalog)
    plan = load_plan(config, source, root, latest)
    write_build(root, {"config": config.dump(), "captions_revision": plan.captions_revision})
    progress = Progress([stage.name for stage in plan.decisions.stages])
    executor: Executor
    if without_ray:
        executor = _AtOnce(WorkerContext(config, source), slots or 8)
    else:
        executor = OnRay(config, source, work=at_once)
        if slots:
            executor.capacity = _Capacity(executor, slots)  # type: ignore[method-assign]
    committer = Committer(catalog, latest, config.execution)
    build = Build(config, plan, committer, executor, progress, check_lock=lambda: None)
    memory = _Memory()
    started = time.monotonic()
    with memory:
        finals = build.run()
    seconds = time.monotonic() - started
    executor.close()
    count = sum(finals.values())
    print(f"{count} objects in {seconds:.0f} s: {count / seconds:.0f} tasks a second, {finals}")
    # The first third fills caches and queues.
    times, bytes_held = np.array(memory.samples[len(memory.samples) // 3 :]).T
    slope = np.polyfit(times, bytes_held, 1)[0] * seconds / count * 1000
    print(
        f"driver's memory: {bytes_held[0] / 1e6:.0f} MB after a third, {bytes_held[-1] / 1e6:.0f} "
        f"MB at the end; slope {slope / 1e6:.3f} MB per 1,000 tasks"
    )
    return count / seconds


def at_once(task: Task, context: WorkerContext) -> list[Event]:
    """A stage without work: the object's file cannot be had."""
    events = []
    for state in task.states:
        fields = {"status": "failed", "kind": FailureKind.MISSING, "message": "no file"}
        events.append(context.identities.event(FETCH, state, seconds=0.001, **fields))
    return events


class _AtOnce:
    """Does a task as soon as it is asked for, in this process."""

    def __init__(self, context: WorkerContext, slots: int) -> None:
        self._context, self._slots = context, slots
        self._queue: deque[Task] = deque()

    def capacity(self, queue: str) -> int:
        return 2 * self._slots - len(self._queue)

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def wait(self, seconds: float) -> list[Finished]:
        tasks, self._queue = self._queue, deque()
        return [Finished(task=task, events=at_once(task, self._context)) for task in tasks]

    def close(self) -> None:
        self._context.close()


class _Capacity:
    """The capacity of a cluster with this many slots."""

    def __init__(self, executor: OnRay, slots: int) -> None:
        self._executor, self._slots = executor, slots

    def __call__(self, queue: str) -> int:
        return 2 * self._slots - self._executor._in_flight[queue]


class _Memory:
    """Samples this process's resident memory: (seconds, bytes)."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        process, started = psutil.Process(), time.monotonic()
        while not self._ended.wait(1.0):
            self.samples.append((time.monotonic() - started, process.memory_info().rss))
