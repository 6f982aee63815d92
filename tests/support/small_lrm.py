"""Small models with random weights whose surface is real: files of weights, as people hand over."""

import json
from pathlib import Path

import numpy as np
import torch

from tests.support.lrm_models import TINY
from train.checkpoints.manifest import FileEntry, Manifest, hash_file
from train.inference.six_views import camera_tensors, input_cameras
from train.models.lrm.lrm import MeshLRM, NerfLRM, mesh_preset, nerf_preset
from train.models.lrm.nerf import raw_density
from train.models.lrm.published_weights import export_weights

SIZES = {key: value for key, value in TINY.dump().items() if key != "nerf"}
MESH = SIZES | {"mesh": {"decoder_width": 16, "grid_resolution": 16}}
NERF = SIZES | {"nerf": TINY.nerf.dump()}
PRESET = "tiny"
"""Of which all of these differ."""


def options(changes: dict) -> list[str]:
    """The sizes, as the command line takes them with a file."""
    return ["--preset", PRESET, "--model", json.dumps(changes)]


def pictures(seed: int = 0, side: int = 32) -> torch.Tensor:
    """Six views without meaning."""
    return torch.rand(1, 6, 3, side, side, generator=torch.Generator().manual_seed(seed))


def _alive(model):
    """Cameras count, and nothing is zero."""
    for layer in model.encoder.model.encoder.layer:
        torch.nn.init.normal_(layer.adaLN_modulation[1].weight, std=0.05)
    return model


def mesh_model(*, empty: bool = False) -> MeshLRM:
    """A third of the grid is inside; or nothing."""
    torch.manual_seed(0)
    model = _alive(MeshLRM(mesh_preset(PRESET, MESH)))
    with torch.no_grad():
        planes = model.forward_planes(pictures(), *camera_tensors(input_cameras()))
        distances = model.synthesizer.distances(planes)
        level = distances.min() - 1 if empty else distances.quantile(0.3)
        model.synthesizer.decoder.net_sdf[-1].bias -= level
        model.synthesizer.decoder.net_rgb[-1].weight *= 20
    return model


def nerf_model() -> NerfLRM:
    """A third of the box has a density above 10."""
    torch.manual_seed(0)
    model = _alive(NerfLRM(nerf_preset(PRESET, NERF)))
    with torch.no_grad():
        planes = model.forward_planes(pictures(), *camera_tensors(input_cameras()))
        points = torch.rand(1, 4000, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
        raw = model.synthesizer.field(planes)(points)[0]
        level = raw_density(torch.tensor(10.0))
        model.synthesizer.decoder.net[-1].bias[0] += level - raw.quantile(0.7)
    return model


def write_file(model, path: Path) -> Path:
    export_weights(model, path)
    return path


def write_run(model, changes: dict, out: Path) -> Path:
    """A run's folder with one checkpoint, as training leaves it: the model, no optimizer."""
    folder = out / "checkpoints" / "step-00000007"
    folder.mkdir(parents=True)
    file = folder / "mp_rank_00_model_states.pt"
    torch.save({"module": {f"model.{k}": v for k, v in model.state_dict().items()}}, file)
    manifest = Manifest(
        step=7,
        world_size=1,
        config={"preset": PRESET, "model": changes},
        files={file.name: FileEntry(bytes=file.stat().st_size, sha256=hash_file(file))},
        versions={},
        extra={},
    )
    (folder / "manifest.json").write_bytes(manifest.to_json())
    return out


def write_views(folder: Path, seed: int = 0, side: int = 32) -> Path:
    """Six views as `lrm multiview` names them."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for i, view in enumerate(pictures(seed, side)[0]):
        pixels = (view.movedim(0, -1) * 255).round().byte().numpy()
        Image.fromarray(np.asarray(pixels)).save(folder / f"view-{i}.png")
    return folder
