"""A failed stage is retried at once, unused to a later build, or recorded as an internal error."""

import dataclasses
import types

import pytest

from core.failures import FailureKind, Retry, StageFailed
from pipelines.building import tasks
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages import pack
from pipelines.building.stages.fetch import FETCH
from pipelines.building.stages.identities import Identities
from tests.support.listings import listed_state

CONFIG = BuildConfig(source="/glbs", root="/root")


def run(monkeypatch, *outcomes):
    """Return the event of a stage whose attempts end so, the waits, and the unused outcomes."""
    unused, waits = list(outcomes), []

    def work(state, context):
        outcome = unused.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("core.retry.time.sleep", waits.append)
    context = types.SimpleNamespace(config=CONFIG, identities=Identities(CONFIG))
    event = tasks._event_of(dataclasses.replace(FETCH, run=work), listed_state(), context)
    return event, waits, unused


@pytest.mark.parametrize("kind", FailureKind)
def test_only_infrastructure_faults_are_retried_at_once(monkeypatch, kind):
    event, waits, unused = run(monkeypatch, StageFailed(kind, "m", "log"), {"done": 1})
    if kind.retry is Retry.AT_ONCE:
        assert (event.status, event.data, unused) == ("ok", {"done": 1}, [])
        assert waits == [0.0 if kind is FailureKind.KILLED else 5.0]
    else:
        assert (event.status, event.kind, event.message) == ("failed", kind, "m")
        assert (event.data["log_tail"], waits, len(unused)) == ("log", [], 1)


def test_attempts_are_limited_and_the_last_failure_counts(monkeypatch):
    failures = [StageFailed(FailureKind.NO_SPACE, str(n)) for n in range(4)]
    event, waits, unused = run(monkeypatch, *failures)
    assert (event.kind, event.message, waits, len(unused)) == ("no_space", "2", [5.0, 20.0], 1)


def test_storage_errors_are_retried_and_unexpected_errors_are_not(monkeypatch):
    assert run(monkeypatch, OSError("gone"), {})[0].status == "ok"
    event, waits, _ = run(monkeypatch, KeyError("x"))
    assert (event.kind, event.message, waits) == ("internal_error", "fetch: KeyError: 'x'", [])
    assert "Traceback" in event.data["log_tail"]


def test_packing_retries_only_storage_errors(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("core.retry.time.sleep", waits.append)
    context = types.SimpleNamespace(config=CONFIG)
    errors: list[Exception] = [OSError("busy"), OSError("busy")]

    def work() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert pack._retry_storage(work, context) == "done"
    assert waits == [5.0, 20.0]
    errors.append(ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        pack._retry_storage(work, context)
    assert waits == [5.0, 20.0]
