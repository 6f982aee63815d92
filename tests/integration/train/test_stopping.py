"""Runs that are asked to end, or hang, with real signals and processes."""

import json
import threading
import time

import pytest

from tests.support.ranks import RankFailed
from tests.support.tiny import make_config, run_group
from train.checkpoints.checkpoint import find_checkpoint
from train.monitoring.metrics_log import read_metrics


def test_a_signal_to_one_rank_saves_and_leaves_and_the_same_run_goes_on(
    ranks, sphere_dataset, tmp_path
):
    """SIGTERM to one of two ranks, in the middle of many steps."""
    out = tmp_path / "run"
    asked = {"terminate_at": [2 * 6 + 3], "checkpoint_every": 1000, "item_seconds": 0.01}
    config = make_config(sphere_dataset, out, 400, **asked)
    (problem,) = run_group(ranks, 2, [config])
    stopped = find_checkpoint(out).step
    assert stopped < 400
    assert problem == f"Stopped: stopped at step {stopped} with the checkpoint of step {stopped}"
    assert [row["step"] for row in read_metrics(out)] == list(range(1, stopped + 1))
    undisturbed = {"terminate_at": (), "accept_changes": ("terminate_at",)}
    again = config.model_copy(update={"steps": stopped + 1, **undisturbed})
    assert run_group(ranks, 2, [again]) == [""]
    assert [row["step"] for row in read_metrics(out)] == list(range(1, stopped + 2))


def test_a_run_that_was_started_again_is_left_alone(ranks, sphere_dataset, tmp_path):
    """What a killed driver left behind writes nothing beside the newer start."""
    out = tmp_path / "run"

    def start_again() -> None:
        deadline = time.monotonic() + 120
        while len(read_metrics(out)) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        (out / "owner").write_text("a newer start")

    newer = threading.Thread(target=start_again, daemon=True)
    newer.start()
    slow = {"checkpoint_every": 5, "item_seconds": 0.02}
    (problem,) = run_group(ranks, 2, [make_config(sphere_dataset, out, 400, **slow)])
    newer.join()
    assert problem.startswith("Stopped: the run has been started again elsewhere")
    last = find_checkpoint(out).step if any(out.glob("checkpoints/*/manifest.json")) else 0
    assert read_metrics(out)[-1]["step"] == last + 5


def test_a_stop_file_asks_as_a_signal_does(ranks, sphere_dataset, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "stop").touch()
    (problem,) = run_group(ranks, 2, [make_config(sphere_dataset, out, 400, item_seconds=0.01)])
    stopped = find_checkpoint(out).step
    assert problem == f"Stopped: stopped at step {stopped} with the checkpoint of step {stopped}"
    assert stopped < 400


def test_a_hang_is_noticed_written_down_and_ended(ranks, sphere_dataset, tmp_path):
    """One rank hangs in its data, the other waits for it: both end, their files tell them apart."""
    out = tmp_path / "run"
    hang = {"hang_at": [2 * 6 + 3], "watchdog_seconds": 8}
    with pytest.raises(RankFailed, match=r"rank \d ended with exit code 75"):
        run_group(ranks, 2, [make_config(sphere_dataset, out, 6, **hang)])
    files = {path.name.split("-")[1]: path.read_text() for path in (out / "hangs").iterdir()}
    assert "1" in files
    assert "in step 3" in files["1"]
    assert "tiny.py" in files["1"]
    assert find_checkpoint(out).step == 2


def test_metrics_say_where_the_time_goes(ranks, sphere_dataset, tmp_path):
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
