"""Steps that must not count: judged alike on all ranks and after any restart."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.errors import FinalFailure
from tests.support.tiny import make_config, run_group
from train.checkpoints.checkpoint import find_checkpoint
from train.monitoring.metrics_log import SKIPPED, read_metrics
from train.resilience.step_guard import GuardConfig, StepGuard

CONFIG = GuardConfig(max_bad_steps=3, spike_window=20)


def fed(losses: list[float], state=None) -> tuple[list[str], StepGuard]:
    guard = StepGuard(CONFIG, state)
    problems = []
    for loss in losses:
        problems.append(guard.judge(loss))
        guard.settle(loss, problems[-1])
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
    guard.settle(math.nan, "the loss is not finite")
    with pytest.raises(FinalFailure, match="step 6: the loss is not finite; 3 steps in a row"):
        guard.check(6, "the loss is not finite")


@given(st.lists(st.floats(0.1, 100) | st.just(math.nan), max_size=60), st.integers(0, 60))
def test_a_restart_judges_as_if_nothing_had_happened(losses, cut):
    whole, guard = fed(losses)
    first, before = fed(losses[:cut])
    second, after = fed(losses[cut:], json.loads(json.dumps(before.dump())))
    assert first + second == whole
    assert after.dump() == guard.dump()


def skipped(out: Path) -> list[int]:
    return [row["step"] for row in read_metrics(out) if "skipped" in row]


@pytest.fixture(scope="module")
def bad(sphere_dataset, tmp_path_factory) -> Path:
    """Runs of six steps, each with one bad sample in step 3: on rank 1 of 2, of two micro-batches
    the first."""
    folder = tmp_path_factory.mktemp("bad")
    position, configs = 2 * 6 + 3, []
    for stage in (0, 1, 2, 3):
        for fault in ("nan_at", "gradient_nan_at"):
            out = folder / f"{fault}{stage}"
            more = {fault: [position], "zero_stage": stage, "micro_batch": 1}
            configs.append(make_config(sphere_dataset, out, 6, **more))
    configs.append(
        make_config(sphere_dataset, folder / "b", 6, nan_at=[position], precision="bf16")
    )
    configs.append(make_config(sphere_dataset, folder / "few", 3, keep_checkpoints=9))
    assert run_group(2, configs) == [""] * len(configs)
    return folder


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("fault", ["nan_at", "gradient_nan_at"])
def test_one_bad_sample_of_one_rank_skips_the_step_on_all(bad, fault, stage):
    out = bad / f"{fault}{stage}"
    found = read_metrics(out)
    assert skipped(out) == [3]
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert found[2]["skipped_so_far"] == 1
    assert (found[2]["loss"] is None) == (fault == "nan_at")
    assert all(math.isfinite(row["loss"]) for row in found[3:])
    (line,) = read_metrics(out, SKIPPED)
    assert line["step"] == 3
    assert len(line["samples"]) == 6
    # All stages skip alike: what follows is the same.
    others = [row["loss"] for row in read_metrics(bad / f"nan_at{1}")][3:]
    assert [row["loss"] for row in found][3:] == pytest.approx(others, abs=1e-6)


def test_bf16_skips_it_too_and_says_so(bad):
    assert skipped(bad / "b") == [3]
    assert all(math.isfinite(row["loss"]) for row in read_metrics(bad / "b")[3:])


def test_a_skipped_step_changes_no_weight(sphere_dataset, bad, tmp_path):
    """Step 3 alone is bad, so the weights after it are those after step 2."""
    config = make_config(
        sphere_dataset, tmp_path / "run", 3, nan_at=[2 * 6 + 3], keep_checkpoints=9
    )
    assert run_group(2, [config]) == [""]
    two, three = (
        find_checkpoint(tmp_path / "run/checkpoints" / f"step-{n:08d}").weights() for n in (2, 3)
    )
    good = find_checkpoint(bad / "few/checkpoints/step-00000003").weights()
    assert all(torch.equal(two[name], three[name]) for name in two)
    assert not all(torch.equal(good[name], three[name]) for name in two)


def test_many_in_a_row_end_the_run_and_name_them(sphere_dataset, tmp_path):
    config = make_config(
        sphere_dataset, tmp_path / "run", 9, nan_at=range(18, 54), guard={"max_bad_steps": 3}
    )
    (problem,) = run_group(1, [config])
    assert problem.startswith("FinalFailure: step 6: the loss is not finite; 3 steps in a row")
    assert [row["step"] for row in read_metrics(tmp_path / "run", SKIPPED)] == [4, 5, 6]
