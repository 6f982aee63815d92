"""`lrm train --dry-run`: the estimates without a snapshot, and those that need one."""

import json

import pytest

from dataset.snapshots.snapshot import open_snapshot
from dataset.views import META_MEMBER, view_member
from pipelines.cli import main
from tests.support.sphere_datasets import write_sphere_dataset
from train.recipes.registry import RECIPES

SMALL = (
    "train nerf --dry-run --preset tiny --loss.lpips 0 --batch-size 2 --data.num-inputs 3 "
    "--data.num-targets 9 --data.patch-size 16 --data.target-size-min 24 "
    "--data.target-size-max 32 --steps 9"
).split()


def test_a_dry_run_needs_no_snapshot(capsys):
    assert main([*SMALL, "--device", "a100"]) == 0
    shown = capsys.readouterr().out
    for text in ("synthesizer", "361.7 k", "backward", "activations", "1 x a100", "9 steps of 2"):
        assert text in shown
    assert "samples in the training split" not in shown
    assert "would not start" not in shown


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_size(name, capsys):
    assert (
        main(["train", name, "--dry-run", "--preset", "tiny", "--batch-size", "1", "--json"]) == 0
    )
    report = json.loads(capsys.readouterr().out)
    parts = {"encoder", "transformer", "synthesizer", "lpips"}
    if name == "zero123plus":
        parts = {"unet", "vae", "vision_encoder", "text_encoder"}
        # Its only prompt is encoded before the first step.
        assert report["forward"].pop("text_encoder") == 0
    elif name == "pixel2mesh":
        parts = {"model"}
    assert parts - {"text_encoder"} == set(report["forward"])
    assert all(ops > 0 for ops in report["forward"].values())
    assert report["backward"] > report["forward"].get("synthesizer", 0)


def test_the_published_zero123plus_has_a_size_without_its_weights(tmp_path, capsys):
    root, snapshot = write_sphere_dataset(
        tmp_path / "data", ["train"] * 2, rig="zero123plus", size=32
    )
    paths = ["--root", root.uri, "--snapshot", snapshot, "--out", str(tmp_path / "run")]
    sizes = ["--precision", "bf16", "--num-workers", "8", "--micro-batch", "1"]
    assert main(["train", "zero123plus", "--dry-run", "--json", *paths, *sizes]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"] == {"unet": 865910724}
    assert report["frozen"]["vae"] == 83653863
    assert report["frozen"]["vision_encoder"] == 632076800
    assert report["data"]["bytes_per_sample"] > 1000
    assert "sudo-ai/zero123plus-v1.2" in report["refused"]


def test_a_snapshot_adds_the_bytes_to_read(sphere_dataset, tmp_path, capsys):
    """If all twelve views are read, the bytes are those of a sample's images and header."""
    root, snapshot = sphere_dataset
    paths = ["--root", root.uri, "--snapshot", snapshot[:8], "--out", str(tmp_path / "run")]
    assert main([*SMALL, *paths, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["data"]["snapshot"] == snapshot
    needed = {META_MEMBER, *(view_member(view, "rgba") for view in range(12))}
    bytes_of = [
        sum(
            size
            for name, size in zip(sample.entry.members, sample.entry.sizes, strict=True)
            if name in needed
        )
        for sample in open_snapshot(root, snapshot).samples
    ]
    data = report["data"]
    # Range reads include the bytes between two members.
    assert min(bytes_of) <= data["bytes_per_sample"] < 4 * max(bytes_of)
    assert data["bytes_per_step"] == 2 * data["bytes_per_sample"]
    assert (data["samples"], data["steps_per_epoch"], data["epochs"]) == (6, 3, 3.0)
    assert report["memory_total"] == sum(report["memory"].values())
    assert not (tmp_path / "run").exists()


def test_a_reason_not_to_start_is_reported(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert main([*SMALL, "--loss.lpips", "2"]) == 0
    shown = capsys.readouterr().out
    assert "cannot start on this machine: LPIPS" in shown
    assert "14.7 M" in shown


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--device", "abacus"], "--device abacus"),
        (["--utilisation", "2"], "--utilisation"),
        (["--num-workers", "3"], "not a multiple"),
        (["--preset", "huge"], "model preset 'huge'"),
        (["--snapshot", "0000", "--root", "/nowhere/at-all"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line(more, part, capsys):
    assert main([*SMALL, *more]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert part in line


def test_device_requires_dry_run(capsys):
    arguments = [word for word in SMALL if word != "--dry-run"]
    assert main([*arguments, "--device", "h100"]) == 2
    assert "--dry-run" in capsys.readouterr().err
