"""A weight file takes memory and time by its size, whatever it states: file x bomb."""

import os
import time
from pathlib import Path

import pytest
import torch

from core.errors import BadInput
from tests.support.weight_bombs import BOMBS, SAFETENSORS_BOMBS, limited_memory
from train.inference.families import open_model
from train.inference.family import ModelOptions
from train.models.lrm.lrm import NerfLRM, nerf_preset
from train.models.lrm.published_weights import load_state
from train.models.pixel2mesh.pixel2mesh import Pixel2Mesh, pixel2mesh_preset
from train.models.weight_files import pickle_machine
from train.models.weight_files.state_dicts import read_state

MORE_BYTES = 60_000_000
SECONDS = 2
INSTRUCTIONS = 20_000
"""Limit for this test, in which a loop of the real limit would cost seconds."""
TABLE = [(".ckpt", name) for name in BOMBS] + [(".safetensors", name) for name in SAFETENSORS_BOMBS]


@pytest.mark.parametrize(("suffix", "bomb"), TABLE)
def test_a_bomb_is_refused_before_it_unpacks(suffix: str, bomb: str, tmp_path: Path, monkeypatch):
    path = tmp_path / f"weights{suffix}"
    (BOMBS if suffix == ".ckpt" else SAFETENSORS_BOMBS)[bomb](path)
    monkeypatch.setattr(pickle_machine, "_MAX_INSTRUCTIONS", INSTRUCTIONS)
    started = time.process_time()
    with limited_memory(MORE_BYTES), pytest.raises(BadInput) as caught:
        read_state(path)
    assert time.process_time() - started < SECONDS
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize("kind", ["named-pipe", "folder", "loop", "missing"])
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path):
    path = tmp_path / "weights.ckpt"
    if kind == "named-pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    with pytest.raises(BadInput, match=r"weights\.ckpt: "):
        read_state(path)


@pytest.mark.parametrize(
    ("kind", "changes", "cause"),
    [
        ("nerf", {"transformer": {"width": 2**15, "num_heads": 8}}, "does not fit the model"),
        ("nerf", {"transformer": {"num_layers": 10**9}}, "transformer.num_layers: must be"),
        ("nerf", {"encoder": {"num_layers": 10**9}}, "encoder.num_layers: must be"),
        ("nerf", {"image_size": 2**20}, "image_size: must be"),
        ("mesh", {"mesh": {"grid_resolution": 10**5}}, "grid_resolution: must be"),
        ("pixel2mesh", {"hidden": 100_000}, "does not fit the model"),
        ("pixel2mesh", {"last_hidden": 10**9}, "does not fit the model"),
        ("pixel2mesh", {"encoder_width": 10**5}, "does not fit the model"),
        ("pixel2mesh", {"num_vertices": 10**9}, "num_vertices: must be"),
        ("pixel2mesh", {"image_size": 2**20}, "image_size: must be"),
    ],
)
def test_sizes_beyond_the_weights_are_refused_before_the_model_is_built(
    kind, changes, cause, tmp_path: Path
):
    path = tmp_path / ("weights.pt" if kind == "pixel2mesh" else "weights.ckpt")
    own = {"predicts_displacements": torch.zeros(1)} if kind == "pixel2mesh" else {}
    torch.save({"state_dict": {"encoder.weight": torch.zeros(4)} | own}, path)
    with torch.device("meta"):
        NerfLRM(nerf_preset("tiny"))  # the first model imports much of torch
        Pixel2Mesh(pixel2mesh_preset("tiny"))
    with limited_memory(MORE_BYTES), pytest.raises(BadInput, match=cause):
        open_model(kind, path, ModelOptions(preset="tiny", changes=changes))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda value: value.fill_(float("nan")), "not finite"),
        (lambda value: value.fill_(float("-inf")), "not finite"),
        (lambda value: value.to(torch.int64), "types differ"),
        (lambda value: value[:-1], "shapes differ"),
    ],
)
def test_values_that_no_training_writes_are_refused(change, cause: str):
    model = torch.nn.Linear(4, 4)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["bias"] = change(state["bias"])
    before = model.bias.detach().clone()
    with pytest.raises(BadInput, match=cause):
        load_state(model, state, "instantmesh", source="file")
    assert torch.equal(model.bias, before)
