"""A build: drive every object of a plan through its stages, and commit what came of it.

The driver is the only committer. Killing it at any moment loses at most the events of the last
seconds; whatever they described is found again by its name and done again at no cost in truth.
"""

import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow as pa

from core.lock import Check
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.latest import Latest
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import DAMAGED, STAGES, Decider, ObjectState
from pipelines.building.executors import LANES, Executor, Finished, Task
from pipelines.building.listing import write_parts
from pipelines.building.plan import Plan
from pipelines.building.progress import Progress

__all__ = ["Build", "Committer"]

LANE_OF_STAGE = {
    "fetch": "fetch",
    "inspect": "fetch",
    "measure": "render",
    "render": "render",
    "geometry": "render",
    "pack": "pack",
}
_LISTED_PER_COMMIT = 20_000
_EVENTS_PER_RENEWAL = 50_000
"""So many events in the tail of the log make reading slow."""
_WAITING_RENDERS = 2_000
"""So many fetched objects may wait for a render before no more are fetched."""


class Committer:
    """Collects events and appends them to the catalog in batches."""

    def __init__(self, catalog: Catalog, latest: Latest, config: BuildConfig) -> None:
        self._catalog = catalog
        self._latest = latest
        self._limits = config.execution
        self._run = uuid.uuid4().hex
        self._batch = 0
        self._events: list[Event] = []
        self._since = time.monotonic()
        self._not_renewed = 0
        self._still_ours: Check = lambda: None

    def guard(self, still_ours: Check) -> None:
        """Ask this before every attempt to commit."""
        self._still_ours = still_ours

    def add(self, events: Iterable[Event]) -> None:
        """Take events; they are committed soon."""
        self._events.extend(events)

    def add_all(self, events: Iterable[Event]) -> None:
        """Commit a long list of events, without ever holding all of it."""
        listed = iter(events)
        while block := list(islice(listed, _LISTED_PER_COMMIT)):
            self._commit(block)

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
            self._commit(self._events[start : start + self._limits.commit_events])
        self._events = []
        self._since = time.monotonic()
        if self._not_renewed >= _EVENTS_PER_RENEWAL:
            self._renew()

    def close(self) -> None:
        """Commit everything and leave the catalog so that it can be read fast."""
        self.flush()
        if self._not_renewed:
            self._renew()

    def _commit(self, events: Sequence[Event]) -> None:
        self._batch += 1
        self._catalog.commit(events, self._run, self._batch, self._still_ours)
        self._not_renewed += len(events)

    def _renew(self) -> None:
        self._still_ours()
        self._catalog.compact()
        self._latest.renew()
        self._not_renewed = 0


class _Backlog:
    """What waits for a lane: what the plan has for it, and what comes from other lanes."""

    def __init__(self, states: Iterator[ObjectState]) -> None:
        self._planned = states
        self._added: deque[Task] = deque()

    def __len__(self) -> int:
        """Of what was added."""
        return len(self._added)

    def add(self, task: Task, urgent: bool = False) -> None:
        """Queue a task: behind all others, or before them."""
        (self._added.appendleft if urgent else self._added.append)(task)

    def pop(self, lane: str) -> Task | None:
        """The next task; first what was added, since it is nearer to its end."""
        if self._added:
            return self._added.popleft()
        state = next(self._planned, None)
        return None if state is None else Task(lane=lane, states=(state,))


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
        committer: Committer,
        executor: Executor,
        progress: Progress,
        still_ours: Check,
    ) -> None:
        self._still_ours = still_ours
        committer.guard(still_ours)
        self._config = config
        self._plan = plan
        self._root = Storage(config.root)
        self._decider = Decider(config)
        self._committer = committer
        self._executor = executor
        self._progress = progress
        self._total = len(plan.rows)
        self._packers = self._make_packers()
        self._groupers = list(dict.fromkeys(self._packers.values()))
        # What is to be packed goes to the packer, which groups it.
        planned = {lane: self._planned(lane) for lane in LANES if lane != "pack"}
        self._lanes = {lane: _Backlog(planned.get(lane, iter(()))) for lane in LANES}
        self._in_flight = 0
        self._retired: list[str] = []

    def _make_packers(self) -> dict[str, _InOrderPacker]:
        """Per object, who groups it: samples of a damaged shard go back together."""
        order = self._plan.objects.ids.take(self._plan.rows).to_pylist()
        damaged = self._plan.objects.columns.one_of("pack.kind", {DAMAGED})[self._plan.rows]
        groups: dict[str, list[str]] = {"": []}
        for state in self._plan.objects.states(self._plan.rows[damaged]):
            broken = self._decider.broken_shard(state)
            if broken is not None:
                groups.setdefault(broken["shard"], []).append(state.asset_id)
        together = {asset_id for ids in groups.values() for asset_id in ids}
        groups[""] = [asset_id for asset_id in order if asset_id not in together]
        packers: dict[str, _InOrderPacker] = {}
        for shard, ids in groups.items():
            size = len(ids) if shard else self._config.shards.samples_per_shard
            packers |= dict.fromkeys(ids, _InOrderPacker(ids, size))
        return packers

    def run(self) -> Counter[str]:
        """Do all the work; objects per final state, of those that had work to do."""
        self._committer.add_all(self._plan.listing.events())
        write_parts(self._root, self._config, self._plan.listing)
        self._retire_leftovers()
        for stage, whys in self._plan.work.items():
            self._progress.wait(stage, sum(whys.values()))
        finals: Counter[str] = Counter()
        for state in self._planned("pack"):
            self._packers[state.asset_id].settle(state.asset_id, state)
        self._pack_groups()
        while self._submit() or self._in_flight:
            for finished in self._executor.wait(seconds=1.0):
                self._in_flight -= 1
                self._settle(finished, finals)
            self._pack_groups()
            self._still_ours()
            if self._committer.tick():
                self._remove_retired()
            waiting = sum(packer.waiting for packer in self._groupers)
            self._progress.tick(self._total, finals, waiting)
        self._still_ours()
        self._committer.close()
        self._remove_retired()
        self._progress.done(self._total, finals)
        return finals

    def _planned(self, lane: str) -> Iterator[ObjectState]:
        """The objects whose next stage is one of a lane's, read as they are needed."""
        places = [STAGES.index(stage) for stage, of in LANE_OF_STAGE.items() if of == lane]
        stages = self._plan.decisions.stage[self._plan.rows]
        return self._plan.objects.states(self._plan.rows[np.isin(stages, places)])

    def _submit(self) -> int:
        """Start what there is room for; how many tasks."""
        started = 0
        for lane in LANES:
            backlog = self._lanes[lane]
            if lane == "fetch" and len(self._lanes["render"]) > _WAITING_RENDERS:
                continue  # Files would pile up long before anything renders them.
            for _ in range(self._executor.room(lane)):
                task = backlog.pop(lane)
                if task is None:
                    break
                self._executor.submit(task)
                started += 1
        self._in_flight += started
        return started

    def _route(self, state: ObjectState, finals: Counter[str]) -> str | None:
        """Queue an object's next stage and name it, or note that it is done.

        A failure is tried again only by a later build.
        """
        decision = self._decider.decide(state)
        if decision.stage is None or decision.state == "failed":
            finals[decision.state] += 1
            self._packers[state.asset_id].settle(state.asset_id, None)
            return None
        if decision.stage == "pack":
            self._packers[state.asset_id].settle(state.asset_id, state)
        else:
            lane = LANE_OF_STAGE[decision.stage]
            self._lanes[lane].add(Task(lane=lane, states=(state,)))
        return decision.stage

    def _pack_groups(self) -> None:
        for packer in self._groupers:
            for group in packer.take():
                self._lanes["pack"].add(Task(lane="pack", states=group))

    def _settle(self, finished: Finished, finals: Counter[str]) -> None:
        task = finished.task
        if finished.lost and task.attempt < self._config.execution.attempts:
            # To the front: the packer goes in order, and would wait for it.
            again = replace(task, attempt=task.attempt + 1)
            self._lanes[task.lane].add(again, urgent=True)
            return
        events = self._lost(finished) if finished.lost else finished.events
        self._committer.add(events)
        of_object: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            of_object[event.asset_id].append(event)
        for state in task.states:
            own = of_object[state.asset_id]
            for event in own:
                state = state.with_event(event)
            if task.lane == "pack":
                final = self._decider.decide(state).state
                finals[final] += 1
                if final == "kept":
                    self._retired.append(str(state.get("render", "staging")))
                self._progress.settle("pack", own, None)
            else:
                then = self._route(state, finals)
                self._progress.settle(own[0].stage if own else "", own, then)

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
        staged = {f"staging/{name}" for name in self._root.list_files("staging")}
        if staged and "render.staging" in self._plan.objects.table.column_names:
            objects = self._plan.objects
            packed = self._decider.valid("pack", objects.columns)
            packed &= objects.columns.one_of("pack.status", {"ok"})
            paths = objects.table["render.staging"].filter(pa.array(packed)).to_pylist()
            self._retired.extend(staged.intersection(paths))
