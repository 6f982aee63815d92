"""The step guard: NaN losses, spikes, too many skipped steps, and resuming from its state."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import FinalFailure
from train.resilience.step_guard import GuardConfig, StepGuard

CONFIG = GuardConfig(max_bad_steps=3, spike_window=20)


def guard_losses(losses: list[float], state=None) -> tuple[list[str], StepGuard]:
    """Return the problem found for each loss, and the guard after all of them."""
    guard = StepGuard(CONFIG, state)
    problems = []
    for loss in losses:
        problems.append(guard.find_problem(loss))
        guard.record(loss, problems[-1])
    return problems, guard


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_always_a_problem(loss):
    assert guard_losses([loss])[0] == ["the loss is not finite"]


def test_a_spike_is_measured_by_the_median_of_the_losses_of_steps_not_skipped():
    problems, guard = guard_losses([1.0] * 20 + [9.9, 10.1, 1000.0, 1.0])
    assert problems[:21] == [""] * 21
    assert "above 10 times the median" in problems[21]
    assert "above 10 times" in problems[22]
    assert problems[23] == ""
    assert guard.skipped == 2


def test_early_losses_are_never_spikes():
    assert guard_losses([1.0] * 19 + [1e9])[0] == [""] * 20


def test_max_bad_steps_in_a_row_end_the_run():
    _, guard = guard_losses([math.nan] * 2 + [1.0] + [math.nan] * 2)
    guard.check(5, "the loss is not finite")
    guard.record(math.nan, "the loss is not finite")
    with pytest.raises(FinalFailure, match="step 6: the loss is not finite; 3 steps in a row"):
        guard.check(6, "the loss is not finite")


@given(st.lists(st.floats(0.1, 100) | st.just(math.nan), max_size=60), st.integers(0, 60))
def test_a_guard_resumed_from_its_state_decides_like_one_that_was_not_interrupted(losses, cut):
    expected, guard = guard_losses(losses)
    first, interrupted = guard_losses(losses[:cut])
    second, resumed = guard_losses(losses[cut:], json.loads(json.dumps(interrupted.dump())))
    assert first + second == expected
    assert resumed.dump() == guard.dump()
