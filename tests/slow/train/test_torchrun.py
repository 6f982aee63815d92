"""Training under torchrun, with real signals and processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.support.paths import REPOSITORY
from train.checkpoints.checkpoint import find_checkpoint
from train.monitoring.metrics_log import read_metrics

NERF = (
    "--batch-size 2 --preset tiny --loss.lpips 0 --data.num-inputs 2 --data.num-targets 1 "
    "--data.patch-size 16 --data.target-size-min 16 --data.target-size-max 16 "
    "--checkpoint-every 1000 --preview-every 0 --loggers [] --optimizer.schedule-steps 9000"
).split()


def torchrun(num_ranks: int, *words: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(num_ranks), "-m", "train", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, **pipe)


def nerf(dataset, out: Path, steps: int, *more: object) -> list[object]:
    root, snapshot = dataset
    pinned = ["--root", root.uri, "--snapshot", snapshot, "--out", out]
    return ["nerf", *pinned, *NERF, "--steps", steps, *more]


def test_an_unknown_option_ends_the_process_with_2(sphere_dataset, tmp_path):
    command = [sys.executable, "-m", "train", *map(str, nerf(sphere_dataset, tmp_path, 1))]
    result = subprocess.run(
        [*command, "--batch-sise", "2"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "did you mean --batch-size?" in result.stderr.splitlines()[-1]


def test_sigterm_to_a_rank_saves_a_checkpoint_and_the_same_command_resumes(
    sphere_dataset, tmp_path
):
    """SIGTERM goes to one of two ranks, long before the last step."""
    out = tmp_path / "run"
    agent = torchrun(2, *nerf(sphere_dataset, out, 9000))
    deadline = time.monotonic() + 200
    while len(read_metrics(out)) < 3:
        assert agent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ranks = [
        child
        for child in psutil.Process(agent.pid).children()
        if "train" in " ".join(child.cmdline())
    ]
    ranks[1].send_signal(signal.SIGTERM)
    output, _ = agent.communicate(timeout=120)
    assert agent.returncode != 0
    last_step = find_checkpoint(out).step
    assert f"stopped at step {last_step} with the checkpoint of step {last_step}" in output
    assert [row["step"] for row in read_metrics(out)] == list(range(1, last_step + 1))
    agent = torchrun(2, *nerf(sphere_dataset, out, last_step + 1))
    output, _ = agent.communicate(timeout=200)
    assert agent.returncode == 0, output
    assert f"step {last_step + 1}/{last_step + 1}  loss " in output
    assert read_metrics(out)[-1]["step"] == last_step + 1
