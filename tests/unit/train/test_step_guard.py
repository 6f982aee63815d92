"""Steps that must not count: judged alike on all ranks and after any restart."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import FinalFailure
from train.resilience.step_guard import GuardConfig, StepGuard

CONFIG = GuardConfig(max_bad_steps=3, spike_window=20)


def fed(losses: list[float], state=None) -> tuple[list[str], StepGuard]:
    guard = StepGuard(CONFIG, state)
    problems = []
    for loss in losses:
        problems.append(guard.find_problem(loss))
        guard.record(loss, problems[-1])
    return problems, guard


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_never_counts(loss):
    assert fed([loss])[0] == ["the loss is not finite"]


def test_a_spike_is_measured_by_the_median_of_what_counted():
    problems, guard = fed([1.0] * 20 + [9.9, 10.1, 1000.0, 1.0])
    assert problems[:21] == [""] * 21
    assert "above 10 times the median" in problems[21]
    assert "above 10 times" in problems[22]
    assert problems[23] == ""
    assert guard.skipped == 2


def test_early_losses_are_never_spikes():
    assert fed([1.0] * 19 + [1e9])[0] == [""] * 20


def test_so_many_in_a_row_end_the_run():
    _, guard = fed([math.nan] * 2 + [1.0] + [math.nan] * 2)
    guard.check(5, "the loss is not finite")
    guard.record(math.nan, "the loss is not finite")
    with pytest.raises(FinalFailure, match="step 6: the loss is not finite; 3 steps in a row"):
        guard.check(6, "the loss is not finite")


@given(st.lists(st.floats(0.1, 100) | st.just(math.nan), max_size=60), st.integers(0, 60))
def test_a_restart_judges_as_if_nothing_had_happened(losses, cut):
    whole, guard = fed(losses)
    first, before = fed(losses[:cut])
    second, after = fed(losses[cut:], json.loads(json.dumps(before.dump())))
    assert first + second == whole
    assert after.dump() == guard.dump()
