"""Small models of Pixel2Mesh with random weights, as weight files and as run folders."""

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from tests.support.checkpoints import write_model
from train.models.pixel2mesh.pixel2mesh import Pixel2Mesh, pixel2mesh_preset
from train.models.pixel2mesh.pixel2mesh_weights import write_weights
from train.models.pixel2mesh.stored_template import dump_template
from train.models.pixel2mesh.template_mesh import CENTRE, Template, ellipsoid

SIZES = {"encoder_width": 2, "hidden": 8, "last_hidden": 8, "image_size": 32, "num_vertices": 12}
PRESET = "tiny"
"""The preset whose values SIZES replaces."""
OPTIONS = ["--preset", PRESET, "--model", json.dumps(SIZES)]
"""Options of the command line for these sizes, which a weight file needs."""


def random_model(template: Template | None = None, **changes: Any) -> Pixel2Mesh:
    """Return a model whose blocks move vertices by up to 0.1, depending on the picture.

    `changes` are settings that differ from SIZES.
    """
    torch.manual_seed(0)
    model = Pixel2Mesh(pixel2mesh_preset(PRESET, SIZES | changes), template)
    inputs = torch.rand(1, 3, 32, 32), torch.tensor([[1.0, 1.0, 0.5, 0.5]])
    with torch.no_grad():
        for name, value in model.gcns.named_parameters():
            if name.endswith("weight"):
                value.mul_(2)
        for block, layer in enumerate((model.gcns[0].conv2, model.gcns[1].conv2, model.gconv)):
            for value in layer.parameters():
                torch.nn.init.normal_(value)
            result = model(*inputs)
            origin = torch.tensor(CENTRE) if model.config.published else result.before[block]
            factor = 0.1 / (result.meshes[block] - origin).norm(dim=-1).max()
            for value in layer.parameters():
                value.mul_(factor)
    return model


def own_template() -> Template:
    """Return a template of 12 vertices that is not the one of the models' sizes."""
    regular = ellipsoid(12)
    centre = regular.vertices.mean(axis=0)
    return Template(vertices=centre + 1.2 * (regular.vertices - centre), faces=regular.faces)


def write_file(model: Pixel2Mesh, path: Path) -> Path:
    """Write the model's weights as `lrm weights` does."""
    write_weights(model.state_dict(), path)
    return path


def write_run(model: Pixel2Mesh, out: Path, template: Template | None = None) -> Path:
    """Write a run folder with one checkpoint."""
    stored = None if template is None else dump_template(template)
    config: dict[str, Any] = {"preset": PRESET, "model": SIZES, "template": stored}
    return write_model(model, "pixel2mesh", config, out)


def write_picture(path: Path, colour: str = "red", *, alpha: bool = True) -> Path:
    """Write a picture of an off-centre body, with alpha or on a plain background."""
    image = Image.new("RGBA", (60, 40), (0, 0, 255, 0) if alpha else "gainsboro")
    ImageDraw.Draw(image).polygon([(8, 30), (20, 6), (34, 28)], fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path
