"""Measure the tasks per second of a build's driver, and the growth of its memory.

`python -m benchmarks executor` builds many objects on a local Ray with empty tasks: each object is
submitted, decided and committed, but the worker only returns an event. `--without-ray` measures the
driver alone. `--slots` keeps as many tasks in flight as a cluster of this size would. It prints
tasks per second, and the driver's memory in MB. docs/notes/scale.md shows the figures of a run.
"""

import tempfile
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np
import psutil

from benchmarks.figures import Figure, add_figures, write_figures
from benchmarks.help_text import benchmark_parser
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
from pipelines.building.guard.remembered import read_memory
from pipelines.building.object_table import latest_of
from pipelines.building.plan import load_plan
from pipelines.building.progress import Progress
from pipelines.building.run import Build
from pipelines.building.stages.fetch import FETCH
from pipelines.building.stages.worker_context import WorkerContext
from pipelines.building.tasks import Finished, Task


def main() -> None:
    """Build with empty tasks, and print rate and memory."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--objects", type=int, default=100_000, help="number of objects")
    parser.add_argument(
        "--without-ray", action="store_true", help="run the tasks in the driver's process"
    )
    parser.add_argument(
        "--slots", type=int, help="assumed number of slots [default: those of the local Ray]"
    )
    add_figures(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_source(Path(folder), args.objects)
        rate = measure(Path(folder), args.without_ray, args.slots)
    place_of_work = "driver without Ray" if args.without_ray else "driver on Ray"
    slots = f", {args.slots:,} slots" if args.slots else ""
    write_figures(args.figures, [Figure(f"{place_of_work}{slots}", rate, "tasks/s")])


def measure(folder: Path, without_ray: bool, slots: int | None) -> float:
    """Run one build; return its tasks per second."""
    config = BuildConfig(
        source=str(folder / "source"),
        captions=str(folder / "captions.csv"),
        root=str(folder / "root"),
        filters=FilterConfig(lowpoly=LowPolyConfig(enabled=False)),
    ).checked()
    source, root = Tables(folder), Storage(config.root)
    catalog = Catalog(root)
    latest = latest_of(root, catalog)
    plan = load_plan(config, source, root, latest, read_memory(root))
    write_build(root, {"config": config.dump(), "captions_revision": plan.captions_revision})
    progress = Progress([stage.name for stage in plan.decisions.stages])
    executor: Executor
    if without_ray:
        executor = _InProcess(WorkerContext(config, source), slots or 8)
    else:
        executor = OnRay(config, source, work=empty_work)
        if slots:
            executor.free_slots = _Capacity(executor, slots)  # type: ignore[method-assign]
    committer = Committer(catalog, latest, config.execution)
    build = Build(config, plan, committer, executor, progress, check_lock=lambda: None)
    memory = _Memory()
    started = time.monotonic()
    with memory:
        outcomes = build.run()
    seconds = time.monotonic() - started
    executor.close()
    count = sum(outcomes.values())
    print(f"{count:,} objects in {seconds:.0f} s: {count / seconds:,.0f} tasks/s, {outcomes}")
    # Skip the first third, in which caches and queues are filled.
    times, memory_bytes = np.array(memory.samples[len(memory.samples) // 3 :]).T
    slope = np.polyfit(times, memory_bytes, 1)[0] * seconds / count * 1000
    print(
        f"memory of the driver: {memory_bytes[0] / 1e6:.0f} MB after a third, "
        f"{memory_bytes[-1] / 1e6:.0f} MB at the end; slope {slope / 1e6:.3f} MB per 1,000 tasks"
    )
    return count / seconds


def empty_work(task: Task, context: WorkerContext) -> list[Event]:
    """Return the events of a task without doing its work: each object's file is missing."""
    events = []
    for state in task.states:
        fields = {"status": "failed", "kind": FailureKind.MISSING, "message": "no file"}
        events.append(context.identities.event(FETCH, state, seconds=0.001, **fields))
    return events


class _InProcess:
    """An executor that runs all submitted tasks in this process when it waits."""

    def __init__(self, context: WorkerContext, slots: int) -> None:
        self._context, self._slots = context, slots
        self._queue: deque[Task] = deque()

    def free_slots(self, queue: str) -> int:
        return 2 * self._slots - len(self._queue)

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def wait(self, seconds: float) -> list[Finished]:
        tasks, self._queue = self._queue, deque()
        return [Finished(task=task, events=empty_work(task, self._context)) for task in tasks]

    def waiting_for(self) -> str:
        return ""

    def close(self) -> None:
        self._context.close()


class _Capacity:
    """The free_slots function of an executor on a cluster with this many slots."""

    def __init__(self, executor: OnRay, slots: int) -> None:
        self._executor, self._slots = executor, slots

    def __call__(self, queue: str) -> int:
        return 2 * self._slots - self._executor._in_flight[queue]


class _Memory:
    """A thread that records this process's resident memory each second as (seconds, bytes)."""

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
