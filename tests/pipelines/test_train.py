"""Training through the command line: on Ray, killed, resumed, refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from dataset.storage import Storage
from tests.pipelines.conftest import REPOSITORY, run_lrm

SMALL = (
    "--batch-size 2 --preset tiny --loss.lpips 0 --data.num-inputs 3 --data.num-targets 1 "
    "--data.patch-size 16 --data.target-size-min 24 --data.target-size-max 32 "
    "--checkpoint-every 2 --preview-every 4 --optimizer.schedule-steps 8"
).split()


def words(dataset, out: Path, steps: int, *more: str) -> list[str]:
    root, snapshot = dataset
    pinned = ["--root", root.uri, "--snapshot", snapshot, "--out", str(out)]
    return ["train", "nerf", *pinned, *SMALL, "--steps", str(steps), *more]


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in rows(out)]


@pytest.fixture(scope="module")
def undisturbed(sphere_dataset, tmp_path_factory) -> Path:
    """Six steps on two workers, in one go."""
    out = tmp_path_factory.mktemp("undisturbed")
    answer = run_lrm(*words(sphere_dataset, out, 6, "--num-workers", "2"))
    assert answer.code == 0, answer.err
    return out


def test_every_step_has_its_line(undisturbed):
    found = rows(undisturbed)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert [row["samples"] for row in found] == [2, 4, 6, 8, 10, 12]
    assert len({row["batch"] for row in found}) > 1
    for row in found:
        assert row["loss"] == pytest.approx(row["mse"] + row["mask"], rel=1e-5)
        assert 0 < row["lr"] <= 4e-4


def test_previews_show_something(undisturbed):
    picture = np.asarray(Image.open(undisturbed / "previews" / "step-00000006.png"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


def test_a_killed_run_goes_on_and_leaves_no_process(sphere_dataset, undisturbed, tmp_path):
    command = words(sphere_dataset, tmp_path, 6, "--num-workers", "2")
    driver = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *command],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
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
    answer = run_lrm(*command)
    assert answer.code == 0, answer.err
    assert "went on after step" in answer.out
    assert losses(tmp_path) == losses(undisturbed)


def test_a_torn_checkpoint_is_passed_over(sphere_dataset, undisturbed, tmp_path):
    """The one before is taken, and the steps after it repeat bit for bit."""
    shutil.copytree(undisturbed, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-00000006"
    shard = next(newest.glob("*optim_states.pt"))
    shard.write_bytes(shard.read_bytes()[:-1])
    command = words(sphere_dataset, tmp_path / "run", 6, "--num-workers", "2", "--json")
    answer = run_lrm(*command)
    assert answer.json()["first_step"] == 4
    assert losses(tmp_path / "run") == losses(undisturbed)


def test_a_finished_run_does_nothing(sphere_dataset, undisturbed):
    before = losses(undisturbed)
    summary = run_lrm(*words(sphere_dataset, undisturbed, 6, "--num-workers", "2", "--json")).json()
    assert summary["first_step"] == summary["step"] == 6
    assert losses(undisturbed) == before


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--num-workers", "2", "--seed", "5"], ["other settings", "seed (0 -> 5)"]),
        (["--num-workers", "1"], ["written by 2 workers, not 1", "--num-workers 2"]),
        (["--num-workers", "2", "--optimizer.beta1", "0.5"], ["optimizer", "0.5"]),
        (["--num-workers", "3"], ["batch_size 2 is not a multiple of num_workers 3"]),
        (["--num-workers", "2", "--preset", "huge"], ["model preset 'huge'"]),
        (["--num-workers", "2", "--loss.lpips", "2"], ["lpips"]),
        (["--num-workers", "2", "--data.patch-size", "64"], ["patch_size 64"]),
    ],
)
def test_what_cannot_go_on_is_refused(sphere_dataset, undisturbed, more, parts):
    home = {"TORCH_HOME": "/nowhere"}
    answer = run_lrm(*words(sphere_dataset, undisturbed, 8, *more), **home)
    assert answer.code == 2, answer.err
    (line,) = answer.err.strip().splitlines()
    for part in parts:
        assert part in line


def test_a_snapshot_that_is_not_there(sphere_dataset, tmp_path):
    answer = run_lrm(*words((sphere_dataset[0], "0000"), tmp_path / "run", 2))
    assert answer.code == 2
    assert f"there are: {sphere_dataset[1]}" in answer.err
    assert not (tmp_path / "run").exists()


def test_the_loss_falls_on_real_renders(built, tmp_path):
    snapshot = run_lrm("snapshot", "--root", built.root, "--validation-share", 0, "--json").json()
    command = words((Storage(str(built.root)), snapshot["snapshot"]), tmp_path, 70)
    learns = ["--optimizer.learning-rate", "1e-3", "--optimizer.schedule-steps", "70"]
    often = ["--batch-size", "4", "--checkpoint-every", "70", "--address", "none"]
    answer = run_lrm(*command, *learns, *often)
    assert answer.code == 0, answer.err
    found = losses(tmp_path)
    assert sum(found[-20:]) < 0.9 * sum(found[:20])


def test_training_alone_without_ray(sphere_dataset, tmp_path):
    answer = run_lrm(*words(sphere_dataset, tmp_path, 2, "--address", "none", "--json"))
    assert answer.json()["step"] == 2
