"""The stage-2 step on the meta device: its networks, applied to a typical number of points."""

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from train.models.lrm.mesh import MeshConfig, MeshSynthesizer
from train.models.surfaces.flexicubes import SurfaceCells, find_surface, grid_vertices

__all__ = ["ASSUMED", "MeshStepTensors", "sphere_cells", "stand_in"]

_RADIUS = 0.8
"""Radius, in world units, of the sphere that replaces an object; the box is [-1, 1]^3."""
_OBJECT_SHARE = 0.3
"""Share of a view's pixels that show the object: that sphere at the paper's camera distance."""

ASSUMED = (
    f"an object's surface runs through the cubes that a sphere of radius {_RADIUS} runs through",
    f"{100 * _OBJECT_SHARE:.0f} % of a view's pixels show the object",
    "FlexiCubes and the rasterizer are not run: they have no matrix products, and of their memory "
    "only the pictures count",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class MeshStepTensors:
    """Tensors that a stage-2 step computes for one object; on the meta device, shapes only."""

    sdf: Float[Tensor, "g"]
    deformation: Float[Tensor, "k 3"]
    """Displacement of the grid vertices at cubes with surface."""
    weights: Float[Tensor, "s 21"]
    rgb: Float[Tensor, "v 3 h w"]
    alpha: Float[Tensor, "v 1 h w"]

    @property
    def regularizers(self) -> Float[Tensor, ""]:
        """A scalar that depends on every field, so that all of them get a gradient."""
        return self.sdf.mean() + self.deformation.mean() + self.weights.square().mean()


def sphere_cells(config: MeshConfig) -> SurfaceCells:
    """Return the grid cells that the sphere's surface crosses, computed on the CPU."""
    with torch.device("cpu"):
        distances = grid_vertices(config.grid_resolution, config.grid_size).norm(dim=1) - _RADIUS
        return find_surface(distances, config.grid_resolution)


def stand_in(
    synthesizer: MeshSynthesizer,
    cells: SurfaceCells,
    planes: Float[Tensor, "3 c r r"],
    views: int,
    size: tuple[int, int],
) -> MeshStepTensors:
    """Apply the stage-2 networks to one object's planes, which may be on the meta device.

    Distances are computed on the whole grid, deformation and weights at the cells, and colour at
    the pixels that show the object in `views` images of `size` (height, width).
    """
    config, device = synthesizer.config, planes.device
    vertices = cells.corners.unique().to(device)
    on_device = {name: value.to(device) for name, value in vars(cells).items()}
    features = synthesizer.features(planes)
    raw, _ = synthesizer.weights(features, dataclasses.replace(cells, **on_device))
    pixels = views * math.prod(size)
    points = torch.zeros(round(_OBJECT_SHARE * pixels), 3, device=device)
    colours = synthesizer.colour(planes, points)
    images = F.pad(colours, (0, 1, 0, pixels - len(colours))).view(views, *size, 4)
    return MeshStepTensors(
        sdf=synthesizer.distances(planes[None])[0],
        deformation=synthesizer.decoder.deformation(features.at(vertices), config.grid_resolution),
        weights=raw,
        rgb=images[..., :3].movedim(-1, -3),
        alpha=images[..., 3:].movedim(-1, -3),
    )
