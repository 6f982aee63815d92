"""Runs that receive a stop request or hang, with real signals and processes."""

import json
import threading
import time

import pytest

from tests.support.ranks import RankFailed
from tests.support.tiny_recipe import make_config, run_group
from train.checkpoints.checkpoint import find_checkpoint
from train.monitoring.metrics_log import read_metrics


def test_a_signal_to_one_rank_saves_and_ends_the_run_which_can_be_resumed(
    ranks, sphere_dataset, tmp_path
):
    """One of two ranks receives SIGTERM in the middle of a run."""
    out = tmp_path / "run"
    settings = {"terminate_at": [2 * 6 + 3], "checkpoint_every": 1000, "item_seconds": 0.01}
    config = make_config(sphere_dataset, out, 400, **settings)
    (problem,) = run_group(ranks, 2, [config])
    stopped = find_checkpoint(out).step
    assert stopped < 400
    stop = f"Stopped: stopped at step {stopped} with the checkpoint of step {stopped}; "
    assert problem == f"{stop}the same command continues"
    assert [row["step"] for row in read_metrics(out)] == list(range(1, stopped + 1))
    undisturbed = {"terminate_at": (), "accept_changes": ("terminate_at",)}
    again = config.model_copy(update={"steps": stopped + 1, **undisturbed})
    assert run_group(ranks, 2, [again]) == [""]
    assert [row["step"] for row in read_metrics(out)] == list(range(1, stopped + 2))


def test_ranks_of_an_older_start_end_without_writing(ranks, sphere_dataset, tmp_path):
    """Ranks that outlive their killed driver write nothing once a newer start owns the run."""
    out = tmp_path / "run"

    def start_again() -> None:
        deadline = time.monotonic() + 120
        while len(read_metrics(out)) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        (out / "owner").write_text("a newer start")

    restart = threading.Thread(target=start_again, daemon=True)
    restart.start()
    slow = {"checkpoint_every": 5, "item_seconds": 0.02}
    (problem,) = run_group(ranks, 2, [make_config(sphere_dataset, out, 400, **slow)])
    restart.join()
    assert problem.startswith("Stopped: the run has been started again elsewhere")
    last = find_checkpoint(out).step if any(out.glob("checkpoints/*/manifest.json")) else 0
    assert read_metrics(out)[-1]["step"] == last + 5


def test_a_stop_file_ends_a_run_as_a_signal_does(ranks, sphere_dataset, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "stop").touch()
    (problem,) = run_group(ranks, 2, [make_config(sphere_dataset, out, 400, item_seconds=0.01)])
    stopped = find_checkpoint(out).step
    stop = f"Stopped: stopped at step {stopped} with the checkpoint of step {stopped}; "
    assert problem == f"{stop}the same command continues"
    assert stopped < 400


def test_a_hung_rank_writes_its_stacks_and_ends(ranks, sphere_dataset, tmp_path):
    """One rank hangs in its data, the other waits: both end, and the stacks show which one hung."""
    out = tmp_path / "run"
    hang = {"hang_at": [2 * 6 + 3], "watchdog_seconds": 8}
    with pytest.raises(RankFailed, match=r"rank \d ended with exit code 75"):
        run_group(ranks, 2, [make_config(sphere_dataset, out, 6, **hang)])
    files = {path.name.split("-")[1]: path.read_text() for path in (out / "hangs").iterdir()}
    assert "1" in files
    assert "in step 3" in files["1"]
    assert "tiny_recipe.py" in files["1"]
    assert find_checkpoint(out).step == 2


def test_metrics_hold_the_time_of_each_part_of_a_step(ranks, sphere_dataset, tmp_path):
    slow = {"item_seconds": 0.02, "slow_ranks_every": 2}
    assert run_group(ranks, 2, [make_config(sphere_dataset, tmp_path / "run", 4, **slow)]) == [""]
    for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        parts = [
            row[f"seconds_{name}"] for name in ("data", "forward", "backward", "agree", "step")
        ]
        assert sum(parts) <= row["seconds"] + 1e-3
        assert 0 < row["goodput"] <= 1
        assert row["gradient_norm"] > 0
        assert row["samples_per_second"] == pytest.approx(6 / row["seconds"], rel=0.01)
