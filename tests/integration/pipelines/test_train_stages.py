"""Initial weights of a run through the command line: stage 2 from stage 1, and other sources."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.errors import BadInput
from pipelines.cli import main
from tests.support.local_training import run_local_training
from tests.support.metrics import losses, rows
from tests.support.train_arguments import mesh_arguments, nerf_arguments
from train.checkpoints.initial_weights import check_source, run_weights
from train.models.lrm.published_weights import write_weights
from train.models.pixel2mesh.pixel2mesh import Pixel2Mesh, pixel2mesh_preset
from train.models.pixel2mesh.pixel2mesh_weights import PIXEL2MESH_WEIGHTS
from train.recipes.mesh import MeshRecipe, MeshTrainConfig
from train.recipes.nerf import NerfRecipe, NerfTrainConfig


@pytest.fixture(scope="module")
def nerf(sphere_dataset, tmp_path_factory) -> Path:
    """Return the run folder of two steps of stage 1."""
    out = tmp_path_factory.mktemp("nerf")
    answer = run_local_training(*nerf_arguments(sphere_dataset, out, 2))
    assert answer.code == 0, answer.err
    return out


@dataclass(frozen=True)
class Mesh:
    """A run of two steps of stage 2, and the stage 1 weights that it started from."""

    out: Path
    stage_one: dict[str, Tensor]
    stderr: str


@pytest.fixture(scope="module")
def mesh(sphere_dataset, nerf, tmp_path_factory) -> Mesh:
    """Run two steps of stage 2, then delete the run of stage 1."""
    folder = tmp_path_factory.mktemp("stages")
    nerf_run = shutil.copytree(nerf, folder / "nerf")
    _, stage_one = run_weights(nerf_run)
    stage_one = {name: value.clone() for name, value in stage_one.items()}
    command = mesh_arguments(sphere_dataset, folder / "mesh", 2, "--init", str(nerf_run))
    answer = run_local_training(*command)
    assert answer.code == 0, answer.err
    shutil.rmtree(nerf_run)
    return Mesh(folder / "mesh", stage_one, answer.err)


def test_stage_2_starts_from_stage_1_and_resumes_without_it(sphere_dataset, mesh):
    run = mesh.out.parent / "nerf"
    record = json.loads((mesh.out / "init.json").read_text())
    assert record["init"] == str(run)
    assert record["source"] == str(run / "checkpoints" / "step-00000002")
    assert all("net_deformation" in key or "net_weight" in key for key in record["new"])
    assert "converge" not in mesh.stderr
    metrics = rows(mesh.out)
    assert metrics[0]["lr"] == 4e-5
    for row in metrics:
        weighted = {"mse": 1, "mask": 1, "depth": 0.5, "normal": 0.2}
        weighted |= {"sdf_sign": 0.01, "deviation": 0.5, "weight_size": 0.1}
        total = sum(weight * row[name] for name, weight in weighted.items())
        assert row["loss"] == pytest.approx(total, rel=1e-5)
    # Two steps at this learning rate change the weights of stage 1 only a little.
    _, weights = run_weights(mesh.out)
    for name, value in mesh.stage_one.items():
        if not name.startswith("synthesizer."):
            assert (weights[name] - value).abs().max() <= 1.1e-4, name
    command = mesh_arguments(sphere_dataset, mesh.out, 3, "--init", str(run), "--json")
    answer = run_local_training(*command)
    assert answer.json()["first_step"] == 2
    assert [row["step"] for row in rows(mesh.out)] == [1, 2, 3]
    assert losses(mesh.out)[:2] == [row["loss"] for row in metrics]


@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_exported_weights_can_be_the_initial_weights(mesh, ending, tmp_path, capsys):
    checkpoint, out = mesh.out / "checkpoints" / "step-00000002", tmp_path / f"model.{ending}"
    assert main(["weights", "--run", str(checkpoint), "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["step"], report["out"]) == (2, str(out))
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
    assert report["tensors"] == len(state) == len(model)
    assert all(torch.equal(model[name], value) for name, value in state.items())


def test_weights_refuses_a_folder_without_a_run_and_unknown_suffixes(mesh, tmp_path, capsys):
    for run, out in ((tmp_path, tmp_path / "w.ckpt"), (mesh.out, tmp_path / "w.pt")):
        assert main(["weights", "--run", str(run), "--out", str(out)]) == 2
        assert not out.exists()
    first, second = capsys.readouterr().err.splitlines()
    assert "is not a run with an intact checkpoint" in first
    assert "written as .ckpt or .safetensors" in second


def settings(out: Path, init: Any, **changes: Any) -> dict[str, Any]:
    plain = {"root": "r", "snapshot": "s", "out": str(out), "preset": "tiny"}
    return plain | {"loss": {"lpips": 0}, "init": str(init)} | changes


def test_a_run_starts_from_another_runs_weights(nerf, tmp_path):
    config = NerfTrainConfig.load(settings(tmp_path, nerf))
    config.check_start()
    model = NerfRecipe(config).build().model.state_dict()
    _, state = run_weights(nerf)
    assert all(torch.equal(model[name], value) for name, value in state.items())


def test_published_weights_start_stage_2_at_either_threshold(nerf, tmp_path):
    _, state = run_weights(nerf)
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
        (MeshTrainConfig, {"model": {"transformer": {"channels": 6}}}, r"shapes differ: \S*deconv"),
        (MeshTrainConfig, {"preset": "small"}, "step-00000002: does not fit the model"),
    ],
)
def test_a_run_of_another_model_is_refused(nerf, tmp_path, kind, changes, message):
    with pytest.raises(BadInput, match=message) as error:
        kind.load(settings(tmp_path, nerf, **changes)).check_start()
    assert "\n" not in str(error.value)


def test_a_run_of_another_family_is_refused(nerf):
    with torch.device("meta"):
        model = Pixel2Mesh(pixel2mesh_preset("tiny"))
    with pytest.raises(BadInput, match=r"is of recipe nerf, .* give a run of recipe pixel2mesh"):
        check_source(PIXEL2MESH_WEIGHTS, model, model.config, str(nerf))


def test_a_mesh_run_for_stage_1_and_damaged_checkpoints_are_refused(mesh, tmp_path):
    with pytest.raises(BadInput, match=r"the model needs synthesizer\.decoder\.net\."):
        NerfTrainConfig.load(settings(tmp_path, mesh.out)).check_start()
    torn = shutil.copytree(mesh.out, tmp_path / "torn")
    for folder in (torn / "checkpoints").iterdir():
        if folder.is_dir():
            (folder / "mp_rank_00_model_states.pt").write_bytes(b"PK")
    for run in (torn, torn / "checkpoints" / "step-00000002"):
        with pytest.raises(BadInput, match="intact checkpoint"):
            MeshTrainConfig.load(settings(tmp_path / "run", run)).check_start()


def test_an_unknown_kind_of_weights_is_refused_before_writing(sphere_dataset, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(mesh_arguments(sphere_dataset, out, 2, "--init", "clip:weights.pth")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "clip:weights.pth: no such source; give the folder of a run" in line
    assert not out.exists()


def test_stage_2_without_initial_weights_warns(tmp_path, caplog):
    MeshTrainConfig.load(settings(tmp_path, "x") | {"init": None}).check_start()
    assert "not expected to converge: give a run of stage 1, --init RUN" in caplog.text
