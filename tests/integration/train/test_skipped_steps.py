"""Bad steps on real ranks: all ranks skip the same step, and a skipped step changes no weight."""

import math
from pathlib import Path

import pytest
import torch

from tests.support.tiny_recipe import make_config, run_group
from train.checkpoints.checkpoint import find_checkpoint
from train.monitoring.metrics_log import SKIPPED, read_metrics


def skipped_steps(out: Path) -> list[int]:
    return [row["step"] for row in read_metrics(out) if "skipped" in row]


@pytest.fixture(scope="module")
def bad_runs(ranks, sphere_dataset, tmp_path_factory) -> Path:
    """Train runs of six steps, each with one bad sample in step 3.

    The sample is in the first of two micro batches of rank 1 of 2.
    """
    folder = tmp_path_factory.mktemp("bad")
    position, configs = 2 * 6 + 3, []
    for stage in (0, 1, 2, 3):
        for fault in ("nan_at", "gradient_nan_at"):
            out = folder / f"{fault}{stage}"
            settings = {fault: [position], "zero_stage": stage, "micro_batch": 1}
            configs.append(make_config(sphere_dataset, out, 6, **settings))
    configs.append(
        make_config(sphere_dataset, folder / "b", 6, nan_at=[position], precision="bf16")
    )
    configs.append(make_config(sphere_dataset, folder / "few", 3, keep_checkpoints=9))
    assert run_group(ranks, 2, configs) == [""] * len(configs)
    return folder


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("fault", ["nan_at", "gradient_nan_at"])
def test_one_bad_sample_of_one_rank_skips_the_step_on_all_ranks(bad_runs, fault, stage):
    out = bad_runs / f"{fault}{stage}"
    rows = read_metrics(out)
    assert skipped_steps(out) == [3]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[2]["skipped_so_far"] == 1
    assert (rows[2]["loss"] is None) == (fault == "nan_at")
    assert all(math.isfinite(row["loss"]) for row in rows[3:])
    (line,) = read_metrics(out, SKIPPED)
    assert line["step"] == 3
    assert len(line["samples"]) == 6
    # All ZeRO stages skip the same step, so the losses after it are equal.
    expected = [row["loss"] for row in read_metrics(bad_runs / f"nan_at{1}")][3:]
    assert [row["loss"] for row in rows][3:] == pytest.approx(expected, abs=1e-6)


def test_a_bf16_run_skips_and_records_the_bad_step(bad_runs):
    assert skipped_steps(bad_runs / "b") == [3]
    assert all(math.isfinite(row["loss"]) for row in read_metrics(bad_runs / "b")[3:])


def test_a_skipped_step_changes_no_weight(ranks, sphere_dataset, bad_runs, tmp_path):
    """Only step 3 is bad, so the weights after it equal those after step 2."""
    config = make_config(
        sphere_dataset, tmp_path / "run", 3, nan_at=[2 * 6 + 3], keep_checkpoints=9
    )
    assert run_group(ranks, 2, [config]) == [""]
    two, three = (
        find_checkpoint(tmp_path / "run/checkpoints" / f"step-{n:08d}").weights() for n in (2, 3)
    )
    good = find_checkpoint(bad_runs / "few/checkpoints/step-00000003").weights()
    assert all(torch.equal(two[name], three[name]) for name in two)
    assert not all(torch.equal(good[name], three[name]) for name in two)


def test_too_many_skipped_steps_in_a_row_end_the_run_and_are_logged(
    ranks, sphere_dataset, tmp_path
):
    config = make_config(
        sphere_dataset, tmp_path / "run", 9, nan_at=range(18, 54), guard={"max_bad_steps": 3}
    )
    (problem,) = run_group(ranks, 1, [config])
    assert problem.startswith("FinalFailure: step 6: the loss is not finite; 3 steps in a row")
    assert [row["step"] for row in read_metrics(tmp_path / "run", SKIPPED)] == [4, 5, 6]
