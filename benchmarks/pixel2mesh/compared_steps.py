"""Training steps of Pixel2Mesh that `pixel2mesh_step` compares: ours, and the PyTorch port's.

Nothing of the port is in this project. Its modules are imported from the user's checkout, and get
our template and a module in place of the CUDA extension.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from train.models.pixel2mesh.deformation_losses import DeformationLossConfig, deformation_loss
from train.models.pixel2mesh.pixel2mesh import Pixel2Mesh, pixel2mesh_preset
from train.models.pixel2mesh.template_mesh import CENTRE, MeshLevel, ellipsoid, mesh_levels
from train.models.surfaces import nearest_points

__all__ = ["Program", "open_ours", "open_port"]

_FOCAL, _CENTRAL, _PIXELS = 250.0, 112.0, 224
"""Published focal length in pixels, index of the central pixel, and side of the picture."""
_NUM_POINTS = 9000
"""Points of the true surface per object: the published sample size."""
_SLOTS = 8
"""Neighbours of a vertex in the port's template."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A training step without optimizer, in parts."""

    model: nn.Module
    predict: Callable[[], Any]
    loss: Callable[[Any], Tensor]


def open_ours(preset: str, batch: int, *, published: bool, own_search: bool) -> Program:
    """Return our step; with `published` coordinates and pooling are those of the port."""
    config = pixel2mesh_preset(preset, {"published": "half_pixel"} if published else {})
    model = Pixel2Mesh(config)
    if not own_search:
        nearest_points.tree_search = cdist_search
    images, points, normals = _inputs(batch, config.image_size)
    points = points + points.new_tensor(CENTRE)
    # A pixel's index is half a pixel less than its coordinate.
    lens = [_FOCAL / _PIXELS] * 2 + [(_CENTRAL + 0.5) / _PIXELS] * 2
    intrinsics = points.new_tensor(lens).expand(batch, 4).contiguous()
    weights = DeformationLossConfig()

    def loss(output: Any) -> Tensor:
        levels: Any = model.levels
        return deformation_loss(output, levels, points, normals, weights)["loss"]

    return Program(model=model, predict=lambda: model(images, intrinsics), loss=loss)


def open_port(checkout: Path, batch: int) -> Program:
    """Return the port's step, with the sizes and weights of its TensorFlow configuration."""
    sys.path.insert(0, str(checkout))
    _add_module("models.layers.chamfer_wrapper", ChamferDist=CdistChamfer)
    if importlib.util.find_spec("torchvision") is None:
        # Only its ResNet, which is not measured, needs torchvision.
        for name in ("torchvision", "torchvision.models", "torchvision.models.resnet"):
            _add_module(name, ResNet=nn.Module, Bottleneck=nn.Module)
    sizes = SimpleNamespace(
        hidden_dim=256,
        last_hidden_dim=128,
        coord_dim=3,
        gconv_activation=True,
        backbone="vgg16",
        align_with_tensorflow=False,
        z_threshold=0,
    )
    weights = {"chamfer": [1.0] * 3, "chamfer_opposite": 0.55, "normal": 1.6e-4, "laplace": 0.5}
    weights |= {"move": 0.033, "edge": 0.1, "reconst": 0.0, "constant": 1.0}
    template, camera = _port_template(), ([_FOCAL] * 2, [_CENTRAL] * 2, list(CENTRE))
    model_class = importlib.import_module("models.p2m").P2MModel
    loss_class = importlib.import_module("models.losses.p2m").P2MLoss
    model = model_class(sizes, template, *camera)
    loss = loss_class(SimpleNamespace(weights=SimpleNamespace(**weights)), template)
    images, points, normals = _inputs(batch, _PIXELS)
    targets = {"points": points, "normals": normals, "images": images}
    return Program(
        model=model,
        predict=lambda: model(images),
        loss=lambda output: loss(output, targets)[0],
    )


def _inputs(batch: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return random pictures, and points on a sphere around the origin with their normals."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, size, size, generator=generator)
    directions = torch.randn(batch, _NUM_POINTS, 3, generator=generator)
    normals = F.normalize(directions, dim=2)
    return images, 0.25 * normals, normals


def cdist_search(
    points: Float[Tensor, "b n 3"], targets: Float[Tensor, "b m 3"]
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b m"]]:
    """Return the index of each point's nearest target and vice versa, by one distance matrix."""
    distances = torch.cdist(points.detach(), targets.detach())
    return distances.argmin(dim=2), distances.argmin(dim=1)


class CdistChamfer(nn.Module):
    """The interface of the port's CUDA extension: squared distances both ways, and indices."""

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return distances to the second set and to the first, and the indices of the nearest."""
        to_second, to_first = cdist_search(first, second)
        return (
            (first - nearest_points.select_points(second, to_second)).square().sum(dim=2),
            (second - nearest_points.select_points(first, to_first)).square().sum(dim=2),
            to_second.int(),
            to_first.int(),
        )


def _add_module(name: str, **members: object) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


def _port_template() -> SimpleNamespace:
    """Return our template with the attributes of the port's class."""
    template = ellipsoid()
    levels = mesh_levels(template)
    supports = [_support(level) for level in levels]
    return SimpleNamespace(
        coord=torch.tensor(template.vertices - CENTRE, dtype=torch.float32),
        adj_mat=supports,
        edges=[support._indices().T for support in supports],
        unpool_idx=[level.edges for level in levels[:-1]],
        laplace_idx=[_neighbour_table(level) for level in levels],
    )


def _support(level: MeshLevel) -> Tensor:
    """Return the support of the graph convolutions as the port stores it: not coalesced."""
    dense = level.support(torch.eye(level.num_vertices)[None])[0]
    indices = dense.nonzero().T
    values = dense[tuple(indices)]
    return torch.sparse_coo_tensor(indices, values, dense.shape, check_invariants=False)


def _neighbour_table(level: MeshLevel) -> Int[Tensor, "v 10"]:
    """Return 8 neighbours of each vertex, padded with -1, then itself and their number."""
    edges = level.edges.numpy()
    rows, columns = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0).T
    table = np.full((level.num_vertices, _SLOTS + 2), -1)
    table[rows, np.arange(len(rows)) - np.searchsorted(rows, rows)] = columns
    table[:, -2] = np.arange(level.num_vertices)
    table[:, -1] = np.bincount(rows)
    return torch.from_numpy(table)
