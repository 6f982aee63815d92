"""Work that fails for a while is tried again, after growing waits, at most the allowed times."""

import random
import time

import pytest

from core.retry import Backoff, retry, retry_result


class Flaky:
    """Raises or returns in turn what it was given."""

    def __init__(self, *outcomes: object) -> None:
        self.left = list(outcomes)
        self.waits: list[float] = []

    def __call__(self) -> object:
        outcome = self.left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    """The waits, which take no time."""
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


def test_errors_that_pass_are_tried_again_after_doubling_waits(slept):
    reports: list[tuple[int, str, float]] = []
    assert run(Flaky(OSError("a"), OSError("b"), OSError("c"), "done"), reports, 4) == "done"
    assert reports == [(1, "a", 2.0), (2, "b", 4.0), (3, "c", 5.0)]
    assert slept == [2.0, 4.0, 5.0]


def test_the_last_error_is_raised_as_it_is(slept):
    work, last = Flaky(OSError("a"), OSError("b"), "never"), OSError("b")
    work.left[1] = last
    with pytest.raises(OSError, match="b") as raised:
        run(work, [], 2)
    assert raised.value is last
    assert (work.left, slept) == (["never"], [2.0])


def test_another_error_is_final(slept):
    work = Flaky(OSError("a"), ValueError("wrong"), "never")
    with pytest.raises(ValueError, match="wrong"):
        run(work, [])
    assert (work.left, slept) == (["never"], [2.0])


def test_one_attempt_waits_for_nothing(slept):
    reports: list[object] = []
    with pytest.raises(OSError, match="a"):
        run(Flaky(OSError("a")), reports, 1)
    assert (reports, slept) == ([], [])


def test_a_failure_that_is_returned_is_tried_again_and_the_last_one_kept(slept):
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


def test_waits_stay_finite_however_often_work_fails():
    assert Backoff(first_seconds=1.0).seconds(10_000) == 2.0**30
