"""Runs that are asked to end, or hang: under torchrun, with real signals and processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.paths import REPOSITORY
from tests.support.tiny import make_config, run_group
from train.checkpoints.checkpoint import find_checkpoint
from train.monitoring.metrics_log import read_metrics

NERF = (
    "--batch-size 2 --preset tiny --loss.lpips 0 --data.num-inputs 2 --data.num-targets 1 "
    "--data.patch-size 16 --data.target-size-min 16 --data.target-size-max 16 "
    "--checkpoint-every 1000 --preview-every 0 --tensorboard false --optimizer.schedule-steps 9000"
).split()


def torchrun(workers: int, *words: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(workers), "-m", "train", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, **pipe)


def nerf(dataset, out: Path, steps: int, *more: object) -> list[object]:
    root, snapshot = dataset
    there = ["--root", root.uri, "--snapshot", snapshot, "--out", out]
    return ["nerf", *there, *NERF, "--steps", steps, *more]


def test_a_preemption_notice_saves_and_leaves_and_the_same_command_goes_on(
    sphere_dataset, tmp_path
):
    """SIGTERM to one of two workers, in the middle of thousands of steps."""
    out = tmp_path / "run"
    agent = torchrun(2, *nerf(sphere_dataset, out, 9000))
    deadline = time.monotonic() + 200
    while len(read_metrics(out)) < 3:
        assert agent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = [
        child
        for child in psutil.Process(agent.pid).children()
        if "train" in " ".join(child.cmdline())
    ]
    workers[1].send_signal(signal.SIGTERM)
    said, _ = agent.communicate(timeout=120)
    assert agent.returncode != 0
    stopped = find_checkpoint(out).step
    assert f"stopped at step {stopped} with the checkpoint of step {stopped}" in said
    assert [row["step"] for row in read_metrics(out)] == list(range(1, stopped + 1))
    agent = torchrun(2, *nerf(sphere_dataset, out, stopped + 1))
    said, _ = agent.communicate(timeout=200)
    assert agent.returncode == 0, said
    assert f"step {stopped + 1}/{stopped + 1}  loss " in said
    assert read_metrics(out)[-1]["step"] == stopped + 1


def test_a_run_that_was_started_again_is_left_alone(sphere_dataset, tmp_path):
    """What a killed driver left behind writes nothing beside the newer start."""
    out = tmp_path / "run"
    agent = torchrun(2, *nerf(sphere_dataset, out, 9000, "--checkpoint-every", 5))
    deadline = time.monotonic() + 200
    while len(read_metrics(out)) < 3:
        assert agent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (out / "owner").write_text("a newer start")
    said, _ = agent.communicate(timeout=120)
    assert "the run has been started again elsewhere" in said
    last = find_checkpoint(out).step if any(out.glob("checkpoints/*/manifest.json")) else 0
    assert read_metrics(out)[-1]["step"] == last + 5


def test_bad_words_end_with_one_line(sphere_dataset, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "WORLD_SIZE"}

    def answer(*words: object) -> tuple[int, str]:
        command = [sys.executable, "-m", "train", *map(str, words)]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stderr.strip().splitlines()[-1]

    code, line = answer(*nerf(sphere_dataset, tmp_path, 1, "--batch-sise", 2))
    assert code == 2
    assert "did you mean --batch-size?" in line
    code, line = answer(*nerf(sphere_dataset, tmp_path, 1))
    assert code == 2
    assert "start it with torchrun" in line


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
    hang = {"hang_at": [2 * 6 + 3], "watchdog_seconds": 12}
    with pytest.raises(Exception, match="exit code 75"):
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
