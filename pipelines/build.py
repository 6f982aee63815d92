"""A build: drive every object of a plan through its stages, and commit what came of it.

The driver is the only committer. Killing it at any moment loses at most the events of the last
seconds; whatever they described is found again by its name and done again at no cost in truth.
"""

import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from dataset.catalog import Catalog, Event
from dataset.storage import Storage
from pipelines.execute import LANES, Executor, Finished, Task
from pipelines.plan import Plan
from pipelines.progress import Progress
from pipelines.settings import BuildConfig
from pipelines.state import Decider, ObjectState

__all__ = ["Build", "Committer"]

_LANE_OF_STAGE = {"fetch": "fetch", "inspect": "fetch", "measure": "render", "render": "render"}


class Committer:
    """Collects events and appends them to the catalog in batches."""

    def __init__(self, catalog: Catalog, config: BuildConfig) -> None:
        self._catalog = catalog
        self._limits = config.execution
        self._run = uuid.uuid4().hex
        self._batch = 0
        self._events: list[Event] = []
        self._since = time.monotonic()

    def add(self, events: Iterable[Event]) -> None:
        """Take events; they are committed soon."""
        self._events.extend(events)

    def tick(self) -> bool:
        """Commit if enough events or time have passed; whether nothing waits any more."""
        waited = time.monotonic() - self._since
        enough = len(self._events) >= self._limits.commit_events
        if enough or waited >= self._limits.commit_seconds:
            self.flush()
        return not self._events

    def flush(self) -> None:
        """Commit everything now."""
        for start in range(0, len(self._events), self._limits.commit_events):
            self._batch += 1
            batch = self._events[start : start + self._limits.commit_events]
            self._catalog.commit(batch, self._run, self._batch)
        self._events = []
        self._since = time.monotonic()


class _InOrderPacker:
    """Groups rendered objects into shards in the order of the plan, not of completion.

    So the same plan gives the same shards on any number of workers.
    """

    def __init__(self, order: Sequence[str], samples_per_shard: int) -> None:
        self._order = order
        self._size = samples_per_shard
        self._settled: dict[str, ObjectState | None] = {}
        self._next = 0
        self._group: list[ObjectState] = []
        self.waiting = 0
        """Objects that are rendered and not yet handed out."""

    def settle(self, asset_id: str, rendered: ObjectState | None) -> None:
        """An object is done: with a rendered sample to pack, or without (None)."""
        self._settled[asset_id] = rendered
        self.waiting += rendered is not None

    def take(self) -> Iterator[tuple[ObjectState, ...]]:
        """The groups that are complete by now; the last may be short."""
        while self._next < len(self._order) and self._order[self._next] in self._settled:
            state = self._settled.pop(self._order[self._next])
            self._next += 1
            if state is not None:
                self._group.append(state)
            ended = self._next == len(self._order)
            if self._group and (len(self._group) == self._size or ended):
                self.waiting -= len(self._group)
                yield tuple(self._group)
                self._group = []


class Build:
    """One run of `lrm build`."""

    def __init__(
        self,
        config: BuildConfig,
        plan: Plan,
        catalog: Catalog,
        executor: Executor,
        progress: Progress,
    ) -> None:
        self._config = config
        self._plan = plan
        self._root = Storage(config.root)
        self._decider = Decider(config)
        self._committer = Committer(catalog, config)
        self._executor = executor
        self._progress = progress
        order = [asset_id for asset_id, found in plan.decisions.items() if found.stage is not None]
        self._packer = _InOrderPacker(order, config.shards.samples_per_shard)
        self._queues: dict[str, deque[Task]] = {lane: deque() for lane in LANES}
        self._in_flight = 0
        self._retired: list[str] = []
        self._order = order

    def run(self) -> Counter[str]:
        """Do all the work; objects per final state, of those that had work to do."""
        self._committer.add(self._plan.listing)
        self._committer.flush()
        self._retire_leftovers()
        finals: Counter[str] = Counter()
        for asset_id in self._order:
            self._route(self._plan.states[asset_id], finals, first=True)
        self._pack_groups()
        while self._in_flight or any(self._queues.values()):
            self._submit()
            for finished in self._executor.wait(seconds=1.0):
                self._in_flight -= 1
                self._settle(finished, finals)
            self._pack_groups()
            if self._committer.tick():
                self._remove_retired()
            self._progress.tick(len(self._order), finals, self._packer.waiting)
        self._committer.flush()
        self._remove_retired()
        self._progress.done(len(self._order), finals)
        return finals

    def _submit(self) -> None:
        for lane in LANES:
            queue = self._queues[lane]
            for _ in range(min(len(queue), self._executor.room(lane)) if queue else 0):
                self._executor.submit(queue.popleft())
                self._in_flight += 1

    def _route(self, state: ObjectState, finals: Counter[str], first: bool = False) -> None:
        """Queue an object's next stage, or note that it is done.

        A failure is tried again only by a later build: `first` is the start of this one.
        """
        decision = self._decider.decide(state)
        asset_id = state.record.asset_id
        if decision.stage is None or (decision.state == "failed" and not first):
            finals[decision.state] += 1
            self._packer.settle(asset_id, None)
        elif decision.stage == "pack":
            self._packer.settle(asset_id, state)
        else:
            lane = _LANE_OF_STAGE[decision.stage]
            self._queues[lane].append(Task(lane=lane, states=(state,)))

    def _pack_groups(self) -> None:
        for group in self._packer.take():
            self._queues["pack"].append(Task(lane="pack", states=group))

    def _settle(self, finished: Finished, finals: Counter[str]) -> None:
        task = finished.task
        if finished.lost and task.attempt < self._config.execution.attempts:
            # To the front: the packer goes in order, and would wait for it.
            self._queues[task.lane].appendleft(replace(task, attempt=task.attempt + 1))
            return
        events = self._lost(finished) if finished.lost else finished.events
        self._committer.add(events)
        for state in task.states:
            own = [event for event in events if event.asset_id == state.record.asset_id]
            for event in own:
                state = state.with_event(event)
            self._progress.count(own)
            if task.lane == "pack":
                final = self._decider.decide(state).state
                finals[final] += 1
                if final == "kept":
                    self._retired.append(str(state.results["render"].data["staging"]))
            else:
                self._route(state, finals)

    def _lost(self, finished: Finished) -> list[Event]:
        """What to record when the worker of a task was lost for the last time."""
        message = f"lost {finished.task.attempt} workers at this object: {finished.lost}"
        return [
            self._decider.event(
                self._decider.decide(state).stage or finished.task.lane,
                state,
                status="failed",
                kind="worker_lost",
                message=message,
            )
            for state in finished.task.states
        ]

    def _remove_retired(self) -> None:
        """Staged samples go when the catalog knows their shard, and not before."""
        for path in self._retired:
            self._root.delete(path)
        self._retired = []

    def _retire_leftovers(self) -> None:
        """Staged samples of an earlier build that was killed before it removed them."""
        staged = set(self._root.list_files("staging"))
        for asset_id, decision in self._plan.decisions.items():
            if decision.state == "kept":
                name = f"{self._plan.states[asset_id].results['pack'].key}.tar"
                if name in staged:
                    self._retired.append(f"staging/{name}")
