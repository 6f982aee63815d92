"""Tasks: pieces of work for one worker. They know nothing of Ray."""

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
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
from pipelines.building.stages.worker_context import WorkerContext, seconds_before_retry

__all__ = ["Finished", "Task", "run_task"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of work: the stages of a queue for one object, or one stage for a group."""

    queue: str
    """The name of its queue."""
    states: tuple[ObjectState, ...]
    attempt: int = 1


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A task that ended: with events, or with the loss of its worker."""

    task: Task
    events: Sequence[Event] = ()
    lost: str = ""
    """Why the worker was lost; empty if it was not."""


def run_task(task: Task, context: WorkerContext) -> list[Event]:
    """Do a task. Returns the events of its objects; a failure of an object is an event, too."""
    stages = [stage for stage in STAGES if stage.queue.name == task.queue]
    for stage in stages:
        if stage.run_group is not None:
            return stage.run_group(task.states, context)
    decider = Decider(context.config, context.identities)
    return [event for state in task.states for event in _advance(state, stages, decider, context)]


def _advance(
    state: ObjectState, stages: Sequence[Stage], decider: Decider, context: WorkerContext
) -> list[Event]:
    """Do for one object those of the stages that it needs and that its verdicts allow."""
    events: list[Event] = []
    try:
        while True:
            stage = decider.decide(state).stage
            again = stage is not None and any(event.stage == stage.name for event in events)
            if stage is None or stage not in stages or again:
                return events
            event = _event_of(stage, state, context)
            state = with_event(state, event)
            events.append(event)
    finally:
        context.drop_glb()


def _event_of(stage: Stage, state: ObjectState, context: WorkerContext) -> Event:
    """Do a stage, again after a pause if a machine is at fault.

    So a machine without free space or without Blender does not fail the whole plan at once.
    """
    started = time.monotonic()
    outcome = retry_result(
        lambda: _attempt(stage, state, context),
        attempts=context.config.execution.attempts,
        is_transient=lambda outcome: outcome.retry is Retry.AT_ONCE,
        wait=_seconds_before_retry,
    )
    seconds = round(time.monotonic() - started, 3)
    return context.identities.event(stage, state, seconds=seconds, **outcome.fields)


def _seconds_before_retry(failures: int, outcome: "_Outcome") -> float:
    # Whatever killed a child has got the memory that it needed.
    killed = outcome.kind is FailureKind.KILLED
    return 0.0 if killed else seconds_before_retry(failures)


@dataclass(frozen=True)
class _Outcome:
    """How an attempt ended, as fields of an event."""

    data: dict[str, Any]
    kind: FailureKind | None = None
    message: str = ""

    @property
    def retry(self) -> Retry:
        """When to try again."""
        return Retry.NEVER if self.kind is None else self.kind.retry

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the event."""
        if self.kind is None:
            return {"data": self.data}
        return {"status": "failed", "kind": self.kind, "message": self.message, "data": self.data}


def _attempt(stage: Stage, state: ObjectState, context: WorkerContext) -> _Outcome:
    assert stage.run is not None
    try:
        return _Outcome(stage.run(state, context))
    except StageFailed as error:
        data = {} if error.log_tail is None else {"log_tail": error.log_tail}
        return _Outcome(data, error.kind, str(error))
    except storage_errors() as error:
        return _Outcome({}, FailureKind.STORAGE, f"{stage.name}: {error}")
    except Exception as error:  # noqa: BLE001 - the unforeseen costs the object, never the batch
        message = f"{stage.name}: {type(error).__name__}: {error}"
        log_tail = traceback.format_exc()[-4096:]
        return _Outcome({"log_tail": log_tail}, FailureKind.INTERNAL_ERROR, message)
