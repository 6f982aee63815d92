"""Tasks: pieces of work for one worker, independent of Ray."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.failures import FailureKind, Retry, StageFailed
from core.retry import retry_result
from core.storage import storage_errors
from dataset.catalog.event_log import Event
from pipelines.building.decide import Decider
from pipelines.building.projection import with_event
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import Stage
from pipelines.building.stages.time_limit import TimeLimitReached, time_limit
from pipelines.building.stages.worker_context import (
    StageStart,
    WorkerContext,
    seconds_before_retry,
)

__all__ = ["Finished", "Task", "run_task", "timeout_fields"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of work: the stages of a queue for one object, or one stage for a group of them."""

    queue: str
    """Name of the queue."""
    states: tuple[ObjectState, ...]
    """The objects of the task."""
    attempt: int = 1


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A task that ended with events, or because its worker was lost."""

    task: Task
    events: Sequence[Event] = ()
    lost: str = ""
    """Why the worker was lost; empty if it was not."""
    stuck_in: StageStart | None = None
    """The stage that took longer than its limit, if the worker was lost or given up for that."""


Announce = Callable[[StageStart], None]
"""Called before every attempt at a stage."""


def _not_announced(_start: StageStart) -> None:
    pass


def run_task(
    task: Task, context: WorkerContext, announce: Announce = _not_announced
) -> list[Event]:
    """Run a task and return the events of its objects. The failure of an object is an event, too.

    Runs in a worker. Never raises for a failure of an object, its input or the storage.
    """
    stages = [stage for stage in STAGES if stage.queue.name == task.queue]
    for stage in stages:
        if stage.run_group is not None:
            return _run_group(stage, task.states, context, announce)
    decider = Decider(context.config, context.identities)
    return [
        event
        for state in task.states
        for event in _advance(state, stages, decider, context, announce)
    ]


def timeout_fields(stage: Stage, max_seconds: float) -> dict[str, Any]:
    """Return the fields of the event of an object whose stage took too long."""
    message = f"{stage.name} took more than {max_seconds:,.0f} s, the limit of this stage"
    return {"status": "failed", "kind": stage.timeout_kind, "message": message}


def _run_group(
    stage: Stage, states: Sequence[ObjectState], context: WorkerContext, announce: Announce
) -> list[Event]:
    assert stage.run_group is not None
    seconds = stage.max_seconds(context.config)
    announce(StageStart(stage=stage.name, asset_id="", max_seconds=seconds))
    try:
        with time_limit(seconds):
            return stage.run_group(states, context)
    except TimeLimitReached:
        fields = timeout_fields(stage, seconds)
        return [context.identities.event(stage, state, **fields) for state in states]


def _advance(
    state: ObjectState,
    stages: Sequence[Stage],
    decider: Decider,
    context: WorkerContext,
    announce: Announce,
) -> list[Event]:
    """Run the stages that one object needs, until a filter drops it or another queue is next."""
    events: list[Event] = []

    def announce_with_events(start: StageStart) -> None:
        announce(replace(start, events=tuple(events)))

    try:
        while True:
            stage = decider.decide(state).stage
            if stage is None or stage not in stages:
                return events
            if any(event.stage == stage.name for event in events):
                return events  # it failed just now; a later build retries it
            event = _event_of(stage, state, context, announce_with_events)
            state = with_event(state, event)
            events.append(event)
    finally:
        context.drop_glb()


def _event_of(
    stage: Stage, state: ObjectState, context: WorkerContext, announce: Announce = _not_announced
) -> Event:
    """Run a stage and return its event; infrastructure faults are retried after a pause.

    The pause keeps one machine without free space or Blender from failing all objects of the plan.
    """
    started = time.monotonic()
    outcome = retry_result(
        lambda: _attempt(stage, state, context, announce),
        attempts=context.config.execution.attempts,
        is_transient=lambda outcome: outcome.retry is Retry.AT_ONCE,
        wait=_seconds_before_retry,
    )
    seconds = round(time.monotonic() - started, 3)
    return context.identities.event(stage, state, seconds=seconds, **outcome.fields)


def _seconds_before_retry(failures: int, outcome: "_Outcome") -> float:
    # A killed child has freed its memory already: no need to wait.
    was_killed = outcome.kind is FailureKind.KILLED
    return 0.0 if was_killed else seconds_before_retry(failures)


@dataclass(frozen=True)
class _Outcome:
    """The outcome of one attempt at a stage, as fields of an event."""

    data: dict[str, Any]
    kind: FailureKind | None = None
    message: str = ""

    @property
    def retry(self) -> Retry:
        """When to retry."""
        return Retry.NEVER if self.kind is None else self.kind.retry

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the event."""
        if self.kind is None:
            return {"data": self.data}
        return {"status": "failed", "kind": self.kind, "message": self.message, "data": self.data}


def _attempt(
    stage: Stage, state: ObjectState, context: WorkerContext, announce: Announce
) -> _Outcome:
    assert stage.run is not None
    seconds = stage.max_seconds(context.config)
    announce(StageStart(stage=stage.name, asset_id=state.asset_id, max_seconds=seconds))
    try:
        with time_limit(seconds):
            return _Outcome(stage.run(state, context))
    except TimeLimitReached:
        context.abandon_scene()
        fields = timeout_fields(stage, seconds)
        data = {"log_tail": traceback.format_exc()[-4096:]}
        return _Outcome(data, fields["kind"], fields["message"])
    except StageFailed as error:
        data = {} if error.log_tail is None else {"log_tail": error.log_tail}
        return _Outcome(data, error.kind, str(error))
    except storage_errors() as error:
        return _Outcome({}, FailureKind.STORAGE, f"{stage.name}: {error}")
    except Exception as error:  # noqa: BLE001 - any other error fails the object, never the build
        message = f"{stage.name}: {type(error).__name__}: {error}"
        log_tail = traceback.format_exc()[-4096:]
        return _Outcome({"log_tail": log_tail}, FailureKind.INTERNAL_ERROR, message)
