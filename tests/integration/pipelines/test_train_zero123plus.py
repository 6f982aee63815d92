"""The fine-tune of Zero123++ through the command line: training, resume, export, loading."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipelines.cli import main
from render.rigs import get_rig
from tests.support.local_training import run_local_training
from tests.support.sphere_datasets import write_sphere_dataset
from tests.support.zero123plus_runs import train_zero123plus_runs
from train.checkpoints.checkpoint import find_checkpoint
from train.inference.views_file import read_distance
from train.models.zero123plus.pipeline import load_zero123plus
from train.models.zero123plus.tiny import tiny_pipeline
from train.recipes.registry import make_recipe

DECAY = 0.5
SMALL = {
    "preset": "tiny",
    "batch_size": 4,
    "micro_batch": 2,
    "steps": 4,
    "data": {"view_size": 16, "query_size_min": 20, "query_size_max": 32},
    "checkpoint_every": 2,
    "preview_every": 4,
    "validate_every": 4,
    "sample": {"steps": 2, "margin": 0},
    "ema": DECAY,
    "optimizer": {"learning_rate": 1e-3, "final_learning_rate": 1e-3},
}


@dataclass(frozen=True)
class Runs:
    """Runs of the same steps with different settings, by name."""

    folder: Path
    root: str
    snapshot: str

    def settings(self, name: str, **changes: object) -> dict[str, object]:
        paths = {"root": self.root, "snapshot": self.snapshot, "out": str(self.folder / name)}
        return SMALL | paths | changes

    def losses(self, name: str) -> list[float]:
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    def weights(self, name: str) -> dict[str, Tensor]:
        return find_checkpoint(self.folder / name).weights()


def unet_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "denoiser.unet."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor], prefix: str) -> float:
    """Return the mean difference of all weights.

    Not the maximum: Adam changes a weight by up to the learning rate, however small its gradient.
    """
    differences = [(first[n] - second[n]).abs().flatten() for n in first if n.startswith(prefix)]
    return float(torch.cat(differences).mean())


@pytest.fixture(scope="module")
def runs(ranks, tmp_path_factory) -> Runs:
    """Train the runs: `command` by `lrm train` on one worker, the others on two ranks."""
    folder = tmp_path_factory.mktemp("runs")
    splits = ["train", "train", "train", "validation"]
    root, snapshot = write_sphere_dataset(folder / "data", splits, rig="zero123plus", size=32)
    runs = Runs(folder, root.uri, snapshot)
    file = folder / "settings.json"
    file.write_text(json.dumps(runs.settings("command")))
    answer = run_local_training("train", "zero123plus", "--config", file)
    assert answer.code == 0, answer.err
    latents = str(folder / "latents")
    silent = {"preview_every": 0, "validate_every": 0, "loggers": []}
    others = [
        runs.settings("resumed", **silent, micro_batch=1, steps=2),
        runs.settings("resumed", **silent, micro_batch=1),
        runs.settings("whole", **silent, latent_cache=latents),
        runs.settings("each", **silent, steps=3, checkpoint_every=1, keep_checkpoints=9),
    ]
    ranks.run(2, train_zero123plus_runs, others)
    return runs


def test_a_run_has_losses_validation_and_a_preview(runs):
    assert len(runs.losses("command")) == 4
    lines = (runs.folder / "command" / "validation.jsonl").read_text().splitlines()
    (row,) = map(json.loads, lines)
    assert 0 < row["background_deviation"] < 1
    assert {"v", "psnr", "background_deviation_95", "background_spread"} <= set(row)
    sheet = Image.open(runs.folder / "command" / "previews" / "step-00000004.png")
    assert sheet.size == (48 + 6 * 128, 3 * 128)


def test_a_resumed_run_has_the_same_losses_weights_and_average(runs):
    assert runs.losses("resumed") == pytest.approx(runs.losses("command"), rel=1e-5)
    actual, expected = (runs.weights(name) for name in ("resumed", "command"))
    assert actual.keys() == expected.keys()
    for prefix in ("denoiser.unet.", "ema."):
        assert difference(actual, expected, prefix) < 1e-5


def test_ranks_micro_batches_and_a_latent_cache_do_not_change_the_steps(runs):
    assert runs.losses("whole") == pytest.approx(runs.losses("command"), rel=1e-4)
    actual, expected = (runs.weights(name) for name in ("whole", "command"))
    assert difference(actual, expected, "ema.") < 1e-5
    assert len(list((runs.folder / "latents").rglob("*.safetensors"))) == 3


def test_the_export_is_the_whole_pipeline_with_the_trained_unet(runs, tmp_path, capsys):
    words = ["weights", "--run", str(runs.folder / "each")]
    assert main([*words, "--out", str(tmp_path / "plain"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    trained, initial = unet_of(runs.weights("each")), tiny_pipeline(0)
    assert (answer["step"], answer["tensors"]) == (3, len(trained))
    exported = load_zero123plus(tmp_path / "plain")
    assert all(
        torch.equal(value, trained[name]) for name, value in exported.unet.state_dict().items()
    )
    for part in ("vae", "vision_encoder", "text_encoder"):
        exported_part, initial_part = exported.components[part], initial.components[part]
        for name, value in exported_part.state_dict().items():
            assert torch.equal(value, initial_part.state_dict()[name])
    query = Image.new("RGB", (40, 40), "red")
    exported.set_progress_bar_config(disable=True)
    assert exported([query], [0], num_inference_steps=1, view_size=16).views.isfinite().all()
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]
    # The stored camera distance is that of the target views in training.
    target = get_rig("zero123plus").cameras("objaverse:" + "0" * 32)[1].camera_to_world[:3, 3]
    assert read_distance(tmp_path / "plain") == pytest.approx(np.linalg.norm(target), abs=1e-5)
    # A run starts from it.
    settings = runs.settings("next", init=str(tmp_path / "plain"), ema=0.0)
    module = make_recipe("zero123plus", settings).build()
    state = unet_of(module.state_dict())
    assert all(torch.equal(value, trained[name]) for name, value in state.items())


def test_the_exported_average_is_the_moving_average_of_all_steps(runs, tmp_path):
    key = "conv_in.weight"
    expected = tiny_pipeline(0).unet.state_dict()[key]
    for step in (1, 2, 3):
        weights = unet_of(runs.weights(f"each/checkpoints/step-{step:08d}"))[key]
        expected = DECAY * expected + (1 - DECAY) * weights
    out = tmp_path / "average"
    assert main(["weights", "--run", str(runs.folder / "each"), "--out", str(out), "--ema"]) == 0
    actual = load_zero123plus(out).unet.state_dict()[key]
    torch.testing.assert_close(actual, expected)


def test_an_export_to_an_existing_path_is_refused(runs, capsys):
    run = str(runs.folder / "each")
    assert main(["weights", "--run", run, "--out", run]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "already exists; give a new folder" in line
