"""Training through the command line: in one process and on Ray, resumed, refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.local_training import run_local_training
from tests.support.lrm import run_lrm
from tests.support.metrics import losses, rows
from tests.support.train_arguments import nerf_arguments

STEPS = 4


@pytest.fixture(scope="module")
def undisturbed(sphere_dataset, tmp_path_factory) -> Path:
    """Return the run folder of four steps in this process, without an interruption."""
    out = tmp_path_factory.mktemp("undisturbed")
    preview = ["--preview-every", str(STEPS), "--json"]
    answer = run_local_training(*nerf_arguments(sphere_dataset, out, STEPS, *preview))
    assert answer.json()["step"] == STEPS
    return out


def test_every_step_writes_one_line_of_metrics(undisturbed):
    metrics = rows(undisturbed)
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]
    assert [row["samples"] for row in metrics] == [2, 4, 6, 8]
    assert len({row["batch"] for row in metrics}) > 1
    for row in metrics:
        assert row["loss"] == pytest.approx(row["mse"] + row["mask"], rel=1e-5)
        assert 0 < row["lr"] <= 4e-4


def test_a_preview_is_not_empty(undisturbed):
    picture = np.asarray(Image.open(undisturbed / "previews" / f"step-{STEPS:08d}.png"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


def test_two_workers_on_ray_do_the_same_steps(sphere_dataset, undisturbed, ray_address, tmp_path):
    options = ["--num-workers", "2", "--preview-every", str(STEPS), "--address", ray_address]
    answer = run_lrm(*nerf_arguments(sphere_dataset, tmp_path, STEPS, *options))
    assert answer.code == 0, answer.err
    assert "started at step 1" in answer.out
    assert losses(tmp_path) == pytest.approx(losses(undisturbed), abs=1e-5)
    for name in ("step", "samples", "batch", "lr"):
        actual, expected = ([row[name] for row in rows(out)] for out in (tmp_path, undisturbed))
        assert actual == expected
    assert (tmp_path / "previews" / f"step-{STEPS:08d}.png").exists()
    assert len(json.loads((tmp_path / "run.json").read_text())["hosts"]) == 2


def test_a_finished_run_does_nothing(sphere_dataset, undisturbed):
    before = losses(undisturbed)
    summary = run_lrm(*nerf_arguments(sphere_dataset, undisturbed, STEPS, "--json")).json()
    assert summary["first_step"] == summary["step"] == STEPS
    assert losses(undisturbed) == before


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--num-workers", "2", "--seed", "5"], ["other settings", "seed (0 -> 5)"]),
        (["--num-workers", "2:1"], ["--num-workers", "MIN:MAX such as 2:8, not '2:1'"]),
        (["--num-workers", "2", "--optimizer.beta1", "0.5"], ["optimizer", "0.5"]),
        (["--num-workers", "3"], ["batch_size 2 is not a multiple of num_workers 3"]),
        (["--num-workers", "2", "--preset", "huge"], ["model preset 'huge'"]),
        (["--num-workers", "2", "--init", "dino:/gone"], ["init (None -> 'dino:/gone')"]),
        (["--num-workers", "2", "--loss.lpips", "2"], ["lpips"]),
        (["--num-workers", "2", "--data.patch-size", "64"], ["patch_size 64"]),
    ],
)
def test_a_run_with_other_settings_is_refused(sphere_dataset, undisturbed, more, parts):
    home = {"TORCH_HOME": "/nowhere"}
    answer = run_lrm(*nerf_arguments(sphere_dataset, undisturbed, 8, *more), **home)
    assert answer.code == 2, answer.err
    (line,) = answer.err.strip().splitlines()
    for part in parts:
        assert part in line


def test_an_unknown_snapshot_is_refused_and_the_others_are_listed(sphere_dataset, tmp_path):
    answer = run_lrm(*nerf_arguments((sphere_dataset[0], "0000"), tmp_path / "run", 2))
    assert answer.code == 2
    # Other tests create snapshots in this dataset too.
    listed = answer.err.rpartition("there are: ")[2]
    assert sphere_dataset[1] in listed.strip().split(", ")
    assert not (tmp_path / "run").exists()
