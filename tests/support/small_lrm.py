"""Small LRMs with random weights that contain a surface, as weight files and as run folders."""

import json
from pathlib import Path

import numpy as np
import torch

from tests.support.checkpoints import write_model
from tests.support.lrm_models import TINY
from train.inference.six_views import camera_tensors, input_cameras
from train.models.lrm.lrm import MeshLRM, NerfLRM, mesh_preset, nerf_preset
from train.models.lrm.nerf import raw_density
from train.models.lrm.published_weights import export_weights

SIZES = {key: value for key, value in TINY.dump().items() if key != "nerf"}
MESH = SIZES | {"mesh": {"decoder_width": 16, "grid_resolution": 16}}
NERF = SIZES | {"nerf": TINY.nerf.dump()}
PRESET = "tiny"
"""The preset whose values SIZES, MESH and NERF replace."""


def options(changes: dict) -> list[str]:
    """Return the command line's options for these sizes, which a weight file needs."""
    return ["--preset", PRESET, "--model", json.dumps(changes)]


def pictures(seed: int = 0, side: int = 32) -> torch.Tensor:
    """Return six images of noise, [1, 6, 3, side, side]."""
    return torch.rand(1, 6, 3, side, side, generator=torch.Generator().manual_seed(seed))


def _with_camera_modulation(model):
    """Initialise the camera modulation, which starts at zero, so that cameras have an effect."""
    for layer in model.encoder.model.encoder.layer:
        torch.nn.init.normal_(layer.adaLN_modulation[1].weight, std=0.05)
    return model


def mesh_model(*, empty: bool = False) -> MeshLRM:
    """Return a stage-2 model with 30 % of its grid inside the surface, or nothing if `empty`."""
    torch.manual_seed(0)
    model = _with_camera_modulation(MeshLRM(mesh_preset(PRESET, MESH)))
    with torch.no_grad():
        planes = model.forward_planes(pictures(), *camera_tensors(input_cameras()))
        distances = model.synthesizer.distances(planes)
        level = distances.min() - 1 if empty else distances.quantile(0.3)
        model.synthesizer.decoder.net_sdf[-1].bias -= level
        model.synthesizer.decoder.net_rgb[-1].weight *= 20
    return model


def nerf_model() -> NerfLRM:
    """Return a stage-1 model with a density above 10 in 30 % of the box."""
    torch.manual_seed(0)
    model = _with_camera_modulation(NerfLRM(nerf_preset(PRESET, NERF)))
    with torch.no_grad():
        planes = model.forward_planes(pictures(), *camera_tensors(input_cameras()))
        points = torch.rand(1, 4000, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
        raw = model.synthesizer.field(planes)(points)[0]
        level = raw_density(torch.tensor(10.0))
        model.synthesizer.decoder.net[-1].bias[0] += level - raw.quantile(0.7)
    return model


def write_file(model, path: Path) -> Path:
    """Write the model's weights as `lrm weights` does."""
    export_weights(model, path)
    return path


def write_run(model, changes: dict, out: Path) -> Path:
    """Write a run folder with one checkpoint as training does, without the optimizer."""
    recipe = "nerf" if isinstance(model, NerfLRM) else "mesh"
    return write_model(model, recipe, {"preset": PRESET, "model": changes}, out)


def write_views(folder: Path, seed: int = 0, side: int = 32) -> Path:
    """Write six views under the file names of `lrm multiview`."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for i, view in enumerate(pictures(seed, side)[0]):
        pixels = (view.movedim(0, -1) * 255).round().byte().numpy()
        Image.fromarray(np.asarray(pixels)).save(folder / f"view-{i}.png")
    return folder
