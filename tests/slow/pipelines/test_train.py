"""Training on Ray and torchrun: killed, stopped, resumed on another number of ranks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from core.storage import Storage
from tests.support.local_training import run_local_training
from tests.support.lrm import run_lrm, spawn_lrm
from tests.support.metrics import losses, rows
from tests.support.paths import REPOSITORY
from tests.support.processes import start_lrm
from tests.support.train_arguments import nerf_arguments


@pytest.fixture(scope="module")
def undisturbed(sphere_dataset, tmp_path_factory) -> Path:
    """Return the run folder of six steps on two ranks without an interruption."""
    out = tmp_path_factory.mktemp("undisturbed")
    options = ["--num-workers", "2", "--preview-every", "6"]
    answer = spawn_lrm(*nerf_arguments(sphere_dataset, out, 6, *options))
    assert answer.code == 0, answer.err
    return out


def test_two_workers_do_the_same_steps_as_one_process(sphere_dataset, undisturbed, tmp_path):
    answer = run_local_training(*nerf_arguments(sphere_dataset, tmp_path, 6))
    assert answer.code == 0, answer.err
    assert losses(undisturbed) == pytest.approx(losses(tmp_path), abs=1e-5)
    for name in ("step", "samples", "batch", "lr"):
        actual, expected = ([row[name] for row in rows(out)] for out in (undisturbed, tmp_path))
        assert actual == expected
    assert (undisturbed / "previews/step-00000006.png").exists()
    assert len(json.loads((undisturbed / "run.json").read_text())["hosts"]) == 2


def test_a_killed_run_leaves_no_process_and_is_resumed(sphere_dataset, undisturbed, tmp_path):
    command = nerf_arguments(sphere_dataset, tmp_path, 6, "--num-workers", "2")
    driver = start_lrm(command)
    manifest = tmp_path / "checkpoints" / "step-00000002" / "manifest.json"
    deadline = time.monotonic() + 300
    while not manifest.exists():
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    # Ray's agents end about a minute after their raylet, so the test does not wait for them.
    agents = [child for child in children if "Agent" in child.name()]
    _, alive = psutil.wait_procs(set(children) - set(agents), timeout=60)
    assert alive == []
    for agent in agents:
        agent.kill()
    answer = spawn_lrm(*command)
    assert answer.code == 0, answer.err
    assert "resumed after step" in answer.out
    assert losses(tmp_path) == losses(undisturbed)


def test_a_signal_to_the_driver_saves_a_checkpoint_and_stops(sphere_dataset, tmp_path):
    """SIGTERM to the driver, then SIGINT to its process group as by Ctrl-C at a terminal."""
    command = nerf_arguments(sphere_dataset, tmp_path, 9000)
    last_step = 0
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        driver = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *command, "--checkpoint-every", "9000"],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while not (tmp_path / "metrics.jsonl").exists() or len(rows(tmp_path)) < last_step + 2:
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        send = os.kill if signal_number == signal.SIGTERM else os.killpg
        send(driver.pid, signal_number)
        _, errors = driver.communicate(timeout=120)
        assert driver.returncode == 143, errors
        last_step = rows(tmp_path)[-1]["step"]
        assert f"stopped at step {last_step} with the checkpoint of step {last_step}" in errors
        assert (tmp_path / f"checkpoints/step-{last_step:08d}/manifest.json").exists()
        assert not (tmp_path / "stop").exists()
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, last_step + 1))


def test_a_damaged_checkpoint_is_skipped(sphere_dataset, undisturbed, tmp_path):
    """The checkpoint before it is used, and the steps after it repeat bit by bit.

    The resumed part runs under torchrun: a run may switch between Ray and torchrun.
    """
    shutil.copytree(undisturbed, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-00000006"
    shard = next(newest.glob("*optim_states.pt"))
    shard.write_bytes(shard.read_bytes()[:-1])
    _, *command = nerf_arguments(sphere_dataset, tmp_path / "run", 6, "--num-workers", "2")
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "train"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    result = subprocess.run(
        [sys.executable, "-m", *torchrun, *command],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "step-00000006: not an intact checkpoint, trying the one before" in result.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["first_step"] == 4
    assert losses(tmp_path / "run") == losses(undisturbed)


def test_a_run_resumes_on_fewer_ranks_with_the_same_samples(sphere_dataset, undisturbed, tmp_path):
    """On a machine with two CPUs, --num-workers 1:2 starts one worker of two CPUs."""
    shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000006")
    options = ["--num-workers", "1:2", "--worker-resources", "{CPU: 2}", "--json"]
    answer = spawn_lrm(*nerf_arguments(sphere_dataset, tmp_path / "run", 6, *options))
    assert answer.code == 0, answer.err
    assert answer.json()["first_step"] == 4
    assert losses(tmp_path / "run") == pytest.approx(losses(undisturbed), abs=1e-5)
    batches = [[row["batch"] for row in rows(out)] for out in (tmp_path / "run", undisturbed)]
    assert batches[0] == batches[1]


def test_the_loss_falls_on_real_renders(built_dataset, tmp_path):
    snapshot = run_lrm(
        "snapshot", "--root", built_dataset.root, "--validation-share", 0, "--json"
    ).json()
    command = nerf_arguments((Storage(str(built_dataset.root)), snapshot["snapshot"]), tmp_path, 60)
    optimizer = ["--optimizer.learning-rate", "1e-3", "--optimizer.schedule-steps", "60"]
    settings = ["--batch-size", "3", "--checkpoint-every", "60"]
    answer = run_local_training(*command, *optimizer, *settings)
    assert answer.code == 0, answer.err
    values = losses(tmp_path)
    assert sum(values[-20:]) < 0.9 * sum(values[:20])
