"""Training through the command line: on Ray, killed, resumed, refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from core.errors import BadInput
from core.storage import Storage
from pipelines.cli import main
from tests.support.lrm import run_lrm
from tests.support.paths import REPOSITORY
from tests.support.train_words import mesh_words, words
from train.checkpoints.initial_weights import run_weights
from train.models.lrm.published_weights import write_weights
from train.recipes.mesh import MeshRecipe, MeshTrainConfig
from train.recipes.nerf import NerfRecipe, NerfTrainConfig


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


def test_a_signal_to_the_driver_saves_and_leaves(sphere_dataset, tmp_path):
    """SIGTERM, and then Ctrl-C at the terminal, which all of the driver's processes hear."""
    command = words(sphere_dataset, tmp_path, 9000, "--preview-every", "0")
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
    assert "step-00000006: not a whole checkpoint, trying the one before" in done.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["first_step"] == 4
    assert losses(tmp_path / "run") == losses(undisturbed)


def test_fewer_workers_go_on_with_the_same_samples(sphere_dataset, undisturbed, tmp_path):
    """Of --num-workers 1:2, a machine with one core for Ray has room for one."""
    shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000006")
    wide = ["--num-workers", "1:2", "--worker-resources", "{CPU: 2}", "--json"]
    answer = run_lrm(*words(sphere_dataset, tmp_path / "run", 6, *wide))
    assert answer.code == 0, answer.err
    assert answer.json()["first_step"] == 4
    assert losses(tmp_path / "run") == pytest.approx(losses(undisturbed), abs=1e-5)
    batches = [[row["batch"] for row in rows(out)] for out in (tmp_path / "run", undisturbed)]
    assert batches[0] == batches[1]


def test_a_finished_run_does_nothing(sphere_dataset, undisturbed):
    before = losses(undisturbed)
    summary = run_lrm(*words(sphere_dataset, undisturbed, 6, "--num-workers", "2", "--json")).json()
    assert summary["first_step"] == summary["step"] == 6
    assert losses(undisturbed) == before


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--num-workers", "2", "--seed", "5"], ["other settings", "seed (0 -> 5)"]),
        (["--num-workers", "2:1"], ["num_workers", "MIN:MAX such as 2:8, not '2:1'"]),
        (["--num-workers", "2", "--optimizer.beta1", "0.5"], ["optimizer", "0.5"]),
        (["--num-workers", "3"], ["batch_size 2 is not a multiple of num_workers 3"]),
        (["--num-workers", "2", "--preset", "huge"], ["model preset 'huge'"]),
        (["--num-workers", "2", "--init", "dino:/gone"], ["init (None -> 'dino:/gone')"]),
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
    # Other tests make snapshots in this dataset too.
    there = answer.err.rpartition("there are: ")[2]
    assert sphere_dataset[1] in there.strip().split(", ")
    assert not (tmp_path / "run").exists()


def test_the_loss_falls_on_real_renders(built, tmp_path):
    snapshot = run_lrm("snapshot", "--root", built.root, "--validation-share", 0, "--json").json()
    command = words((Storage(str(built.root)), snapshot["snapshot"]), tmp_path, 60)
    learns = ["--optimizer.learning-rate", "1e-3", "--optimizer.schedule-steps", "60"]
    often = ["--batch-size", "3", "--checkpoint-every", "60", "--address", "none"]
    answer = run_lrm(*command, *learns, *often)
    assert answer.code == 0, answer.err
    found = losses(tmp_path)
    assert sum(found[-20:]) < 0.9 * sum(found[:20])


def test_training_alone_without_ray(sphere_dataset, tmp_path):
    answer = run_lrm(*words(sphere_dataset, tmp_path, 2, "--address", "none", "--json"))
    assert answer.json()["step"] == 2


@dataclass(frozen=True)
class Mesh:
    """Two steps of stage 2, and the model of stage 1 that they started from."""

    out: Path
    stage_one: dict[str, Tensor]
    said: str


@pytest.fixture(scope="module")
def mesh(sphere_dataset, undisturbed, tmp_path_factory) -> Mesh:
    """The run of stage 1 is gone afterwards."""
    folder = tmp_path_factory.mktemp("stages")
    run = shutil.copytree(undisturbed, folder / "nerf")
    _, stage_one = run_weights(run)
    stage_one = {name: value.clone() for name, value in stage_one.items()}
    command = mesh_words(sphere_dataset, folder / "mesh", 2, "--init", str(run))
    answer = run_lrm(*command)
    assert answer.code == 0, answer.err
    shutil.rmtree(run)
    return Mesh(folder / "mesh", stage_one, answer.err)


def test_stage_two_goes_on_from_stage_one_and_then_without_it(sphere_dataset, mesh):
    run = mesh.out.parent / "nerf"
    record = json.loads((mesh.out / "init.json").read_text())
    assert record["init"] == str(run)
    assert record["source"] == str(run / "checkpoints" / "step-00000006")
    assert all("net_deformation" in key or "net_weight" in key for key in record["new"])
    assert "converge" not in mesh.said
    before = rows(mesh.out)
    assert before[0]["lr"] == 4e-5
    for row in before:
        weighted = {"mse": 1, "mask": 1, "depth": 0.5, "normal": 0.2}
        weighted |= {"sdf_sign": 0.01, "deviation": 0.5, "weight_size": 0.1}
        total = sum(weight * row[name] for name, weight in weighted.items())
        assert row["loss"] == pytest.approx(total, rel=1e-5)
    # Two steps at this rate change little: most of stage 1 is still there.
    _, now = run_weights(mesh.out)
    for name, value in mesh.stage_one.items():
        if not name.startswith("synthesizer."):
            assert (now[name] - value).abs().max() <= 1.1e-4, name
    command = mesh_words(sphere_dataset, mesh.out, 3, "--init", str(run), "--json")
    answer = run_lrm(*command)
    assert answer.json()["first_step"] == 2
    assert [row["step"] for row in rows(mesh.out)] == [1, 2, 3]
    assert losses(mesh.out)[:2] == [row["loss"] for row in before]


@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_a_runs_weights_come_out_and_go_in_again(mesh, ending, tmp_path, capsys):
    checkpoint, out = mesh.out / "checkpoints" / "step-00000002", tmp_path / f"model.{ending}"
    assert main(["weights", "--run", str(checkpoint), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["out"]) == (2, str(out))
    config = MeshTrainConfig.load(
        {
            "root": "r",
            "snapshot": "s",
            "out": str(tmp_path / "run"),
            "preset": "tiny",
            "model": {"mesh": {"grid_resolution": 16}},
            "loss": {"lpips": 0},
            "init": str(out),
        }
    )
    config.check_start()
    model = MeshRecipe(config).build().model.state_dict()
    _, state = run_weights(checkpoint)
    assert found["tensors"] == len(state) == len(model)
    assert all(torch.equal(model[name], value) for name, value in state.items())


def test_weights_of_no_run_and_with_another_ending_are_refused(mesh, tmp_path, capsys):
    for run, out in ((tmp_path, tmp_path / "w.ckpt"), (mesh.out, tmp_path / "w.pt")):
        assert main(["weights", "--run", str(run), "--out", str(out)]) == 2
        assert not out.exists()
    first, second = capsys.readouterr().err.splitlines()
    assert "is no run with a whole checkpoint" in first
    assert "written as .ckpt or .safetensors" in second


def settings(out: Path, init: Any, **changes: Any) -> dict[str, Any]:
    plain = {"root": "r", "snapshot": "s", "out": str(out), "preset": "tiny"}
    return plain | {"loss": {"lpips": 0}, "init": str(init)} | changes


def test_a_run_starts_from_another_runs_weights(undisturbed, tmp_path):
    config = NerfTrainConfig.load(settings(tmp_path, undisturbed))
    config.check_start()
    model = NerfRecipe(config).build().model.state_dict()
    _, state = run_weights(undisturbed)
    assert all(torch.equal(model[name], value) for name, value in state.items())


def test_a_published_layout_starts_stage_two_at_either_threshold(undisturbed, tmp_path):
    _, state = run_weights(undisturbed)
    write_weights(state, tmp_path / "nerf.ckpt")
    source = f"instantmesh:{tmp_path / 'nerf.ckpt'}"
    key, levels = "synthesizer.decoder.net_sdf.6.bias", []
    for published in (False, True):
        changes = {"published_threshold": published, "out": str(tmp_path / f"run{published}")}
        config = MeshTrainConfig.load(settings(tmp_path, source) | changes)
        config.check_start()
        levels.append(MeshRecipe(config).build().model.state_dict()[key])
    raw = state["synthesizer.decoder.net.6.bias"][:1]
    torch.testing.assert_close(levels[0] + raw, torch.full((1,), 10.99995), atol=1e-4, rtol=0)
    torch.testing.assert_close(levels[1] + raw, torch.full((1,), 10.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (MeshTrainConfig, {"model": {"transformer": {"num_heads": 2}}}, "num_heads 4 -> 2"),
        (MeshTrainConfig, {"model": {"transformer": {"channels": 6}}}, r"other shapes: \S*deconv"),
        (MeshTrainConfig, {"preset": "small"}, "step-00000006: does not fit the model"),
    ],
)
def test_a_run_of_another_model_is_refused(undisturbed, tmp_path, kind, changes, message):
    with pytest.raises(BadInput, match=message) as error:
        kind.load(settings(tmp_path, undisturbed, **changes)).check_start()
    assert "\n" not in str(error.value)


def test_a_mesh_is_no_start_for_stage_one_and_a_torn_checkpoint_none_at_all(mesh, tmp_path):
    with pytest.raises(BadInput, match=r"the model needs synthesizer\.decoder\.net\."):
        NerfTrainConfig.load(settings(tmp_path, mesh.out)).check_start()
    torn = shutil.copytree(mesh.out, tmp_path / "torn")
    for folder in (torn / "checkpoints").iterdir():
        if folder.is_dir():
            (folder / "mp_rank_00_model_states.pt").write_bytes(b"PK")
    for place in (torn, torn / "checkpoints" / "step-00000002"):
        with pytest.raises(BadInput, match="whole checkpoint"):
            MeshTrainConfig.load(settings(tmp_path / "run", place)).check_start()


def test_a_wrong_source_is_one_line_and_nothing_is_written(sphere_dataset, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(mesh_words(sphere_dataset, out, 2, "--init", "clip:weights.pth")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "clip:weights.pth: no such source; give KIND:FILE with KIND one of" in line
    assert not out.exists()


def test_stage_two_from_nothing_warns(tmp_path, caplog):
    MeshTrainConfig.load(settings(tmp_path, "x") | {"init": None}).check_start()
    assert "not expected to converge: give a run of stage 1, --init RUN" in caplog.text
