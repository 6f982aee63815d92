"""Training through Ray and torchrun: killed, stopped, resumed on another number of workers."""

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
from tests.support.alone import run_alone
from tests.support.lrm import run_lrm, spawn_lrm
from tests.support.metrics import losses, rows
from tests.support.paths import REPOSITORY
from tests.support.processes import start
from tests.support.train_words import words


@pytest.fixture(scope="module")
def undisturbed(sphere_dataset, tmp_path_factory) -> Path:
    """Six steps on two workers, in one go."""
    out = tmp_path_factory.mktemp("undisturbed")
    answer = spawn_lrm(*words(sphere_dataset, out, 6, "--num-workers", "2"))
    assert answer.code == 0, answer.err
    return out


def test_a_killed_run_goes_on_and_leaves_no_process(sphere_dataset, undisturbed, tmp_path):
    command = words(sphere_dataset, tmp_path, 6, "--num-workers", "2")
    driver = start(command)
    manifest = tmp_path / "checkpoints" / "step-00000002" / "manifest.json"
    deadline = time.monotonic() + 300
    while not manifest.exists():
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    # Ray's agents need a minute to see that nobody hears them any more: they are not waited for.
    agents = [child for child in children if "Agent" in child.name()]
    _, alive = psutil.wait_procs(set(children) - set(agents), timeout=60)
    assert alive == []
    for agent in agents:
        agent.kill()
    answer = spawn_lrm(*command)
    assert answer.code == 0, answer.err
    assert "resumed after step" in answer.out
    assert losses(tmp_path) == losses(undisturbed)


def test_a_signal_to_the_driver_saves_and_leaves(sphere_dataset, tmp_path):
    """SIGTERM, and then Ctrl-C at the terminal, which all of the driver's processes hear."""
    command = words(sphere_dataset, tmp_path, 9000)
    done = 0
    for number in (signal.SIGTERM, signal.SIGINT):
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
        while not (tmp_path / "metrics.jsonl").exists() or len(rows(tmp_path)) < done + 2:
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        send = os.kill if number == signal.SIGTERM else os.killpg
        send(driver.pid, number)
        _, said = driver.communicate(timeout=120)
        assert driver.returncode == 143, said
        done = rows(tmp_path)[-1]["step"]
        assert f"stopped at step {done} with the checkpoint of step {done}" in said
        assert (tmp_path / f"checkpoints/step-{done:08d}/manifest.json").exists()
        assert not (tmp_path / "stop").exists()
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, done + 1))


def test_a_torn_checkpoint_is_passed_over(sphere_dataset, undisturbed, tmp_path):
    """The one before is taken, and the steps after it repeat bit for bit, under torchrun as well:
    a run may change from Ray to it and back."""
    shutil.copytree(undisturbed, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-00000006"
    shard = next(newest.glob("*optim_states.pt"))
    shard.write_bytes(shard.read_bytes()[:-1])
    _, *command = words(sphere_dataset, tmp_path / "run", 6, "--num-workers", "2")
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "train"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, *command],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "step-00000006: not an intact checkpoint, trying the one before" in done.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["first_step"] == 4
    assert losses(tmp_path / "run") == losses(undisturbed)


def test_fewer_workers_on_ray_go_on_with_the_same_samples(sphere_dataset, undisturbed, tmp_path):
    """Of --num-workers 1:2, a machine with one core for Ray has room for one."""
    shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000006")
    wide = ["--num-workers", "1:2", "--worker-resources", "{CPU: 2}", "--json"]
    answer = spawn_lrm(*words(sphere_dataset, tmp_path / "run", 6, *wide))
    assert answer.code == 0, answer.err
    assert answer.json()["first_step"] == 4
    assert losses(tmp_path / "run") == pytest.approx(losses(undisturbed), abs=1e-5)
    batches = [[row["batch"] for row in rows(out)] for out in (tmp_path / "run", undisturbed)]
    assert batches[0] == batches[1]


def test_the_loss_falls_on_real_renders(built, tmp_path):
    snapshot = run_lrm("snapshot", "--root", built.root, "--validation-share", 0, "--json").json()
    command = words((Storage(str(built.root)), snapshot["snapshot"]), tmp_path, 60)
    learns = ["--optimizer.learning-rate", "1e-3", "--optimizer.schedule-steps", "60"]
    often = ["--batch-size", "3", "--checkpoint-every", "60"]
    answer = run_alone(*command, *learns, *often)
    assert answer.code == 0, answer.err
    found = losses(tmp_path)
    assert sum(found[-20:]) < 0.9 * sum(found[:20])
