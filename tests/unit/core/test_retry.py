"""Failed work is retried after growing waits, at most the allowed number of times."""

import random
import time

import pytest

from core.retry import Backoff, retry, retry_result


class Flaky:
    """A function that raises or returns the given outcomes in order."""

    def __init__(self, *outcomes: object) -> None:
        self.remaining = list(outcomes)
        self.waits: list[float] = []

    def __call__(self) -> object:
        outcome = self.remaining.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    """Record the waits instead of sleeping, and return them."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def run(work: Flaky, reports: list, attempts: int = 3) -> object:
    return retry(
        work,
        attempts=attempts,
        wait=Backoff(first_seconds=2.0, max_seconds=5.0).seconds,
        is_transient=lambda error: isinstance(error, OSError),
        before_wait=lambda failures, error, seconds: reports.append(
            (failures, str(error), seconds)
        ),
    )


def test_transient_errors_are_retried_after_doubling_waits(slept):
    reports: list[tuple[int, str, float]] = []
    assert run(Flaky(OSError("a"), OSError("b"), OSError("c"), "done"), reports, 4) == "done"
    assert reports == [(1, "a", 2.0), (2, "b", 4.0), (3, "c", 5.0)]
    assert slept == [2.0, 4.0, 5.0]


def test_the_last_error_is_raised_unchanged(slept):
    work, last = Flaky(OSError("a"), OSError("b"), "never"), OSError("b")
    work.remaining[1] = last
    with pytest.raises(OSError, match="b") as raised:
        run(work, [], 2)
    assert raised.value is last
    assert (work.remaining, slept) == (["never"], [2.0])


def test_a_permanent_error_is_not_retried(slept):
    work = Flaky(OSError("a"), ValueError("wrong"), "never")
    with pytest.raises(ValueError, match="wrong"):
        run(work, [])
    assert (work.remaining, slept) == (["never"], [2.0])


def test_a_single_attempt_never_waits(slept):
    reports: list[object] = []
    with pytest.raises(OSError, match="a"):
        run(Flaky(OSError("a")), reports, 1)
    assert (reports, slept) == ([], [])


def test_a_returned_failure_is_retried_and_the_last_one_is_returned(slept):
    def run_result(*results: str) -> str:
        return retry_result(
            Flaky(*results),
            attempts=3,
            is_transient=lambda result: result.startswith("busy"),
            wait=lambda failures, result: 0.0 if result == "busy now" else float(failures**2),
        )

    assert run_result("busy now", "busy", "done") == "done"
    assert run_result("broken") == "broken"
    assert run_result("busy", "busy", "busy still") == "busy still"
    assert slept == [0.0, 4.0, 1.0, 4.0]


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_waits_stay_within_their_bounds(jitter):
    backoff = Backoff(first_seconds=0.5, max_seconds=30.0, jitter=jitter)
    for failures in range(1, 40):
        bound = min(0.5 * 2 ** (failures - 1), 30.0)
        waits = [backoff.seconds(failures) for _ in range(50)]
        assert all(bound * (1 - jitter) <= wait <= bound for wait in waits)
        assert (len(set(waits)) > 1) == (jitter > 0)


def test_a_generator_with_a_seed_repeats_its_waits():
    backoff = Backoff(first_seconds=1.0, jitter=1.0)
    first, second = random.Random("url"), random.Random("url")
    waits = [backoff.seconds(n, first) for n in range(1, 20)]
    assert waits == [backoff.seconds(n, second) for n in range(1, 20)]


def test_waits_stay_finite_after_any_number_of_failures():
    assert Backoff(first_seconds=1.0).seconds(10_000) == 2.0**30
