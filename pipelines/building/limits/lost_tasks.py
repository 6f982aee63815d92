"""The events of a task whose worker was lost, or was ended because it took too long."""

from core.failures import FailureKind
from dataset.catalog.event_log import Event
from pipelines.building.decide import Decider
from pipelines.building.projection import with_event
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.worker_context import StageStart
from pipelines.building.tasks import Finished, Task, timeout_fields

__all__ = ["lost_events"]


def lost_events(finished: Finished, decider: Decider) -> list[Event]:
    """Return the events of a task whose worker was lost in its last attempt.

    If one object took too long, only that object fails.
    """
    if finished.stuck_in is not None:
        return _stuck_events(finished.task, finished.stuck_in, decider)
    attempts = finished.task.attempt
    workers = f"worker lost in each of {attempts} attempts" if attempts > 1 else "worker lost"
    message = f"{workers}: {finished.lost}"
    failed = {"status": "failed", "kind": FailureKind.WORKER_LOST, "message": message}
    events = []
    for state in finished.task.states:
        stage = decider.decide(state).stage
        assert stage is not None
        events.append(decider.identities.event(stage, state, **failed))
    return events


def _stuck_events(task: Task, stuck_in: StageStart, decider: Decider) -> list[Event]:
    """Return the events of the object that took too long, or of all objects of a group."""
    stage = STAGES[stuck_in.stage]
    events = list(stuck_in.events)
    fields = timeout_fields(stage, stuck_in.max_seconds)
    for state in task.states:
        if stuck_in.asset_id in ("", state.asset_id):
            for event in stuck_in.events:
                state = with_event(state, event)
            events.append(decider.identities.event(stage, state, **fields))
    return events
