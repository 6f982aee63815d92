"""What becomes of a stage that fails: tried again at once, left for later, or noted as our own."""

import dataclasses
import types

import pytest

from core.failures import FailureKind, Retry, StageFailed
from pipelines.building import tasks
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages import pack
from pipelines.building.stages.fetch import FETCH
from pipelines.building.stages.identities import Identities
from tests.support.listings import listed

CONFIG = BuildConfig(source="/glbs", root="/root")


def run(monkeypatch, *outcomes):
    """The event of a stage whose attempts end so, the waits, and the attempts that were left."""
    left, waits = list(outcomes), []

    def work(state, context):
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("core.retry.time.sleep", waits.append)
    context = types.SimpleNamespace(config=CONFIG, identities=Identities(CONFIG))
    event = tasks._event_of(dataclasses.replace(FETCH, run=work), listed(), context)
    return event, waits, left


@pytest.mark.parametrize("kind", FailureKind)
def test_only_a_machines_fault_is_tried_again_at_once(monkeypatch, kind):
    event, waits, left = run(monkeypatch, StageFailed(kind, "m", "log"), {"done": 1})
    if kind.retry is Retry.AT_ONCE:
        assert (event.status, event.data, left) == ("ok", {"done": 1}, [])
        assert waits == [0.0 if kind is FailureKind.KILLED else 5.0]
    else:
        assert (event.status, event.kind, event.message) == ("failed", kind, "m")
        assert (event.data, waits, len(left)) == ({"log_tail": "log"}, [], 1)


def test_attempts_have_an_end_and_the_last_failure_counts(monkeypatch):
    failures = [StageFailed(FailureKind.NO_SPACE, str(n)) for n in range(4)]
    event, waits, left = run(monkeypatch, *failures)
    assert (event.kind, event.message, waits, len(left)) == ("no_space", "2", [5.0, 20.0], 1)


def test_storage_is_tried_again_and_the_unforeseen_is_not(monkeypatch):
    assert run(monkeypatch, OSError("gone"), {})[0].status == "ok"
    event, waits, _ = run(monkeypatch, KeyError("x"))
    assert (event.kind, event.message, waits) == ("internal_error", "fetch: KeyError: 'x'", [])
    assert "Traceback" in event.data["log_tail"]


def test_packing_asks_a_storage_again_and_nothing_else(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("core.retry.time.sleep", waits.append)
    context = types.SimpleNamespace(config=CONFIG)
    left: list[Exception] = [OSError("busy"), OSError("busy")]

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    assert pack._retry_storage(work, context) == "done"
    assert waits == [5.0, 20.0]
    left.append(ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        pack._retry_storage(work, context)
    assert waits == [5.0, 20.0]
