"""Loading and writing of Pixel2Mesh's published weights; every key is loaded or named.

There are two kinds of files: `pixel2mesh`, checkpoints of the PyTorch port (also the one migrated
from TensorFlow) and our own; and `resnet50`, torchvision's weights of ImageNet for the image
network alone. Module names are the published keys, so the tensors need no other names.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.errors import BadInput
from train.models.pixel2mesh.pixel2mesh import Pixel2Mesh, Pixel2MeshConfig, pixel2mesh_preset
from train.models.pixel2mesh.template_mesh import CENTRE
from train.models.weight_files.conversion import (
    Converted,
    State,
    WeightsFamily,
)
from train.models.weight_files.state_dicts import CONTAINERS
from train.models.weight_files.writing import Layouts, write_tensors

__all__ = [
    "PIXEL2MESH_WEIGHTS",
    "write_weights",
]

_PARALLEL = "module."
"""Prefix of torch's DataParallel."""
_ENCODER = "nn_encoder."
_UNUSED = re.compile(r"nn_decoder\.|(.*\.)?adj_mat$|nn_encoder\.(fc\.|.*\.num_batches_tracked$)")
"""Keys of the decoder, which only a loss of weight 0 used; of matrices that follow from the
template; of ResNet's classification; and of counters, which constant statistics do not have."""
_MARK = "predicts_displacements"
"""Key that only the weights of models that this project trained have."""
_TOLERANCE = 1e-4
"""Largest difference of two coordinates of the same vertex: an .obj has about 6 digits."""


def write_weights(state: State, path: Path) -> None:
    """Write tensors atomically in float32 under the published keys.

    A `.pt` has the layout of the PyTorch port's checkpoints, without the optimizer's state; a
    `.safetensors` has the tensors alone. Raises BadInput for any other suffix or a wrong path, and
    WorkFailed for a full disk.
    """
    write_tensors(state, path, _LAYOUTS)


def _convert(model: Pixel2Mesh, state: State, kind: str, source: str) -> Converted:
    """Return the tensors of `state` under the model's keys."""
    return _KINDS[kind](model, state, source)


def _from_pixel2mesh(model: Pixel2Mesh, state: State, source: str) -> Converted:
    converted = Converted({})
    for key, value in state.items():
        name = key.removeprefix(_PARALLEL)
        if _UNUSED.match(name):
            converted.dropped.append(key)
        elif name == key or name in state:
            converted.state[key] = value
        else:
            converted.state[name] = value
            converted.renamed[key] = name
    _check_convention(model, converted.state, source)
    if "init_pts" in converted.state:
        _check_template(model, converted.state["init_pts"], source)
    return converted


def _from_resnet50(model: Pixel2Mesh, state: State, source: str) -> Converted:
    if model.config.encoder != "resnet":
        raise BadInput(
            f"{source}: is for the image network ResNet-50, but the model's is "
            f"{model.config.encoder}; give --preset resnet"
        )
    converted = Converted({}, may_be_new=rf"(?!{re.escape(_ENCODER)})")
    for key, value in state.items():
        if _UNUSED.match(_ENCODER + key):
            converted.dropped.append(key)
        else:
            converted.state[_ENCODER + key] = value
            converted.renamed[key] = _ENCODER + key
    return converted


def _check_convention(model: Pixel2Mesh, state: State, source: str) -> None:
    """Raise BadInput if the model takes displacements for coordinates, or the reverse."""
    published = model.config.published
    if _MARK in state and published is not None:
        raise BadInput(
            f"{source}: predicts displacements, as models that this project trains, but the model "
            f"is to be `published: {published}`; leave `published` out of --model"
        )
    if _MARK not in state and published is None:
        points = state.get("init_pts", torch.zeros(1, 3))
        migrated = points.ndim == 2 and bool(points.double().mean(dim=0)[-1] < CENTRE[2] / 2)
        convention = "tensorflow" if migrated else "align_corners"
        raise BadInput(
            f"{source}: predicts coordinates, as published weights: give "
            f"--model '{{published: {convention}}}'"
        )


def _check_template(model: Pixel2Mesh, points: Tensor, source: str) -> None:
    """Raise BadInput unless the points are those that the model deforms.

    The graph convolutions fit one order of vertices, and the layers one position of the template.
    """
    expected = model.template.vertices - np.asarray(model.offset)
    found = points.double().numpy()
    if found.shape != expected.shape or not np.isfinite(found).all():
        difference = f"{len(found)} vertices instead of {len(expected)}"
        shift = None
    else:
        shift = (found - expected).mean(axis=0)
        largest = np.abs(found - expected).max()
        if largest < _TOLERANCE:
            return
        difference = f"they differ by up to {largest:.2g}"
        if np.abs(found - expected - shift).max() >= _TOLERANCE:
            shift = None
    if shift is not None:
        convention = "tensorflow" if shift[2] < 0 else "align_corners"
        raise BadInput(
            f"{source}: its template is around z = {found[:, 2].mean():.2f}, but the model's "
            f"around z = {expected[:, 2].mean():.2f}: for such weights give "
            f"--model '{{published: {convention}}}'"
        )
    raise BadInput(
        f"{source}: belongs to another template ({difference}): give the one of its training with "
        "--template, for published weights info_ellipsoid.dat of the TensorFlow code"
    )


def _changed_settings(preset: str, changes: Mapping[str, Any], config: Pixel2MeshConfig) -> str:
    """Return how the pooling of a run's model differs, which is in no tensor's shape."""
    before = pixel2mesh_preset(preset, changes).published
    if before == config.published:
        return ""
    return f"model.published differs from this run's: {before} -> {config.published}"


_KINDS: Mapping[str, Callable[[Pixel2Mesh, State, str], Converted]] = {
    "pixel2mesh": _from_pixel2mesh,
    "resnet50": _from_resnet50,
}
_LAYOUTS: Layouts = {".pt": lambda state: {"model": state}}
PIXEL2MESH_WEIGHTS = WeightsFamily(
    recipes=("pixel2mesh",),
    kinds=tuple(_KINDS),
    exported="pixel2mesh",
    layouts=_LAYOUTS,
    convert=_convert,
    changed_settings=_changed_settings,
    containers=(*CONTAINERS, "model"),
)
"""What Pixel2Mesh can start from."""
