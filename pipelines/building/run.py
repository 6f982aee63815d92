"""A build: pass every object of a plan through its stages and commit the events.

The driver is the only committer. If it is killed, at most the events of the last seconds are lost.
The next build repeats that work and writes the same files under the same names, so nothing is
stored twice.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from core.failures import FailureKind
from core.lock import LockCheck
from core.storage import Storage
from dataset.catalog.event_log import Event
from pipelines.building.build_config import BuildConfig
from pipelines.building.build_metrics import BuildCounts
from pipelines.building.committer import Committer
from pipelines.building.decide import Decider, Decision
from pipelines.building.executors import Executor
from pipelines.building.failure_counts import FailureCounts
from pipelines.building.limits.lost_tasks import lost_events
from pipelines.building.listing import write_parts
from pipelines.building.packing import ShardGroups
from pipelines.building.plan import Plan
from pipelines.building.progress import Progress
from pipelines.building.projection import with_event
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.pack import PACK, SHARD, damaged_sample_location
from pipelines.building.stages.queues import FETCH_QUEUE
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import ResultFile, Stage
from pipelines.building.tasks import Finished, Task

__all__ = ["Build"]

_MAX_WAITING = 2_000
"""Maximum number of fetched objects that wait for their next stage; fetching pauses above it."""


class _Backlog:
    """The waiting tasks of a queue: those of the plan, and those that other queues add."""

    def __init__(self, queue: str, planned: Iterator[ObjectState], num_planned: int) -> None:
        self._queue = queue
        self._planned = planned
        self._num_planned = num_planned
        self._added: deque[Task] = deque()

    @property
    def num_added(self) -> int:
        """The number of waiting tasks that are not of the plan."""
        return len(self._added)

    def __len__(self) -> int:
        return self._num_planned + len(self._added)

    def add(self, *states: ObjectState) -> None:
        """Append a task for these objects."""
        self._added.append(Task(queue=self._queue, states=states))

    def repeat(self, task: Task) -> None:
        """Prepend another attempt at a task: shards are packed in order."""
        self._added.appendleft(replace(task, attempt=task.attempt + 1))

    def pop(self) -> Task | None:
        """Return the next task, or None. Added tasks come first: they are closer to completion."""
        if self._added:
            return self._added.popleft()
        state = next(self._planned, None)
        if state is None:
            return None
        self._num_planned -= 1
        return Task(queue=self._queue, states=(state,))


class Build:
    """One run of `lrm build`."""

    def __init__(
        self,
        config: BuildConfig,
        plan: Plan,
        committer: Committer,
        executor: Executor,
        progress: Progress,
        check_lock: LockCheck,
    ) -> None:
        self._check_lock = check_lock
        self._config = config
        self._plan = plan
        self._root = Storage(config.root)
        self._decider = Decider(config)
        self._committer = committer
        self._executor = executor
        self._progress = progress
        self._total = len(plan.rows)
        self._groups = self._shard_groups()
        self._backlogs = {
            # Objects to pack are first grouped into shards.
            queue.name: self._backlog(queue.name, planned=queue is not PACK.queue)
            for queue in STAGES.queues(config)
        }
        self._in_flight: Counter[str] = Counter()
        self._finals: Counter[str] = Counter()
        self.failures = FailureCounts()
        """The objects that failed in this build."""
        self._files_to_delete: list[str] = []
        """Staged files whose samples are in a shard that is not committed yet."""

    def run(self) -> Counter[str]:
        """Do all the work of the plan. Returns the number of its objects per final state."""
        self._committer.add_all(self._plan.listing.events())
        write_parts(self._root, self._config, self._plan.listing)
        self._files_to_delete.extend(self._leftovers())
        for stage, reasons in self._plan.work.items():
            self._progress.add_waiting(stage, sum(reasons.values()))
        for state in self._plan.objects.states(self._rows_of(PACK.queue.name)):
            self._groups.resolve(state.asset_id, state)
        self._queue_groups()
        while self._submit() or self._in_flight.total():
            for finished in self._executor.wait(seconds=1.0):
                self._in_flight[finished.task.queue] -= 1
                self._record(finished)
            self._queue_groups()
            self._check_lock()
            if self._committer.tick():
                self._delete_staged_files()
            self._progress.tick(self._counts, self._executor.waiting_for)
        self._check_lock()
        self._committer.close()
        self._delete_staged_files()
        self._progress.done(self._counts())
        return self._finals

    def _shard_groups(self) -> ShardGroups:
        plan = self._plan
        order = plan.objects.ids.take(plan.rows).to_pylist()
        is_damaged = plan.objects.columns.one_of(PACK.events.kind, {FailureKind.SAMPLE_DAMAGED})
        damaged: dict[str, list[str]] = defaultdict(list)
        for state in plan.objects.states(plan.rows[is_damaged[plan.rows]]):
            location = damaged_sample_location(state, self._decider.identities)
            if location is not None:
                damaged[location[SHARD.name]].append(state.asset_id)
        return ShardGroups(order, self._config.shards.samples_per_shard, damaged)

    def _counts(self) -> BuildCounts:
        backlogs, in_flight = self._backlogs, self._in_flight
        return BuildCounts(
            total=self._total,
            finals=dict(self._finals),
            unpacked=self._groups.waiting,
            failures=dict(self.failures.counts),
            queues={name: (len(backlogs[name]), in_flight[name]) for name in backlogs},
        )

    def _backlog(self, queue: str, *, planned: bool) -> _Backlog:
        """Return the waiting tasks of a queue; without those of the plan unless `planned`."""
        rows = self._rows_of(queue) if planned else np.empty(0, dtype=np.int64)
        return _Backlog(queue, self._plan.objects.states(rows), len(rows))

    def _rows_of(self, queue: str) -> Int64[np.ndarray, "m"]:
        """Return the rows of the objects whose next stage belongs to a queue."""
        stages = self._decider.stages
        indices = [index for index, stage in enumerate(stages) if stage.queue.name == queue]
        next_stages = self._plan.decisions.stage[self._plan.rows]
        return self._plan.rows[np.isin(next_stages, indices)]

    def _queue_groups(self) -> None:
        """Queue a pack task for every complete group of objects."""
        for group in self._groups.take_complete():
            self._backlogs[PACK.queue.name].add(*group)

    def _submit(self) -> int:
        """Submit tasks until the executor has no free_slots left. Returns their number."""
        started = 0
        for queue, backlog in self._backlogs.items():
            if queue == FETCH_QUEUE.name and self._num_fetched > _MAX_WAITING:
                continue  # otherwise files fill the disk long before they are rendered
            for _ in range(self._executor.free_slots(queue)):
                task = backlog.pop()
                if task is None:
                    break
                self._executor.submit(task)
                self._in_flight[queue] += 1
                started += 1
        return started

    @property
    def _num_fetched(self) -> int:
        """The number of fetched objects that wait for a stage before the packing."""
        others = {FETCH_QUEUE.name, PACK.queue.name}
        return sum(b.num_added for name, b in self._backlogs.items() if name not in others)

    def _record(self, finished: Finished) -> None:
        """Record the events of a task and queue the next stages of its objects.

        A task whose worker was lost is repeated until its attempts are used up. If an object took
        too long, it fails, and the other objects of its task are queued alone.
        """
        task = finished.task
        stuck_in = finished.stuck_in
        is_last = task.attempt >= self._config.execution.attempts
        if finished.lost and not is_last and (stuck_in is None or not stuck_in.asset_id):
            self._backlogs[task.queue].repeat(task)
            return
        events = lost_events(finished, self._decider) if finished.lost else finished.events
        self._committer.add(events)
        of_object: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            of_object[event.asset_id].append(event)
        for state in task.states:
            own = of_object[state.asset_id]
            for event in own:
                state = with_event(state, event)
            if task.queue == PACK.queue.name:
                self._end_packed(state)
                self._progress.record(PACK.name, own, None)
            else:
                next_stage = self._route(state)
                name = None if next_stage is None else next_stage.name
                self._progress.record(own[0].stage if own else "", own, name)

    def _route(self, state: ObjectState) -> Stage | None:
        """Queue an object's next stage and return it, or count its final state and return None.

        Failures are final for this build; a later build retries them.
        """
        decision = self._decider.decide(state)
        if decision.stage is None or decision.state == "failed":
            self._count(decision)
            self._groups.resolve(state.asset_id, None)
            return None
        if decision.stage is PACK:
            self._groups.resolve(state.asset_id, state)
        else:
            self._backlogs[decision.stage.queue.name].add(state)
        return decision.stage

    def _end_packed(self, state: ObjectState) -> None:
        """Count the final state of a packed object and mark its staged files for deletion."""
        decision = self._decider.decide(state)
        self._count(decision)
        if decision.state == "kept":
            for file in self._files_until_packed():
                path = state.get(file.path)
                if path is not None:
                    self._files_to_delete.append(path)

    def _count(self, decision: Decision) -> None:
        """Count the final state of an object."""
        self._finals[decision.state] += 1
        if decision.failure is not None:
            self.failures.add(decision.failure.kind, decision.failure.message)

    def _delete_staged_files(self) -> None:
        """Delete the staged files of packed objects; call it after their events are committed."""
        self._root.delete(*self._files_to_delete)
        self._files_to_delete = []

    def _files_until_packed(self) -> Iterator[ResultFile]:
        """Yield the files of stages that are kept only until their object is packed."""
        for stage in self._decider.stages:
            if stage.file is not None and stage.file.until == PACK.name:
                yield stage.file

    def _leftovers(self) -> Iterator[str]:
        """Yield the staged files of packed objects that an earlier, killed build did not delete."""
        objects = self._plan.objects
        for file in self._files_until_packed():
            existing = {f"{file.folder}/{name}" for name in self._root.list_files(file.folder)}
            if existing and file.path.key in objects.table.column_names:
                is_packed = self._decider.good(PACK, objects.columns)
                paths = objects.table[file.path.key].filter(pa.array(is_packed)).to_pylist()
                yield from existing.intersection(paths)
