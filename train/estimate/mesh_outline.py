"""Stage 2 on the meta device: its networks at as many points as an object usually has."""

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from train.models.lrm.mesh import MeshConfig, MeshSynthesizer
from train.models.surfaces.flexicubes import SurfaceCells, find_surface, grid_vertices

__all__ = ["ASSUMED", "StandIn", "sphere_cells", "stand_in"]

_RADIUS = 0.8
"""Of the sphere that an object is taken for; the box is [-1, 1]^3."""
_SEEN_SHARE = 0.3
"""Share of the pixels that show the object: such a sphere at the distance of the paper's views."""

ASSUMED = (
    f"an object's surface runs through the cubes that a sphere of radius {_RADIUS} runs through",
    f"{100 * _SEEN_SHARE:.0f} % of a view's pixels show the object",
    "FlexiCubes and the rasterizer are not run: they have no matrix products, and of their memory "
    "only the pictures count",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class StandIn:
    """What a step computes of one object, as shapes."""

    sdf: Float[Tensor, "g"]
    deformation: Float[Tensor, "k 3"]
    """Of the vertices at cubes with surface."""
    weights: Float[Tensor, "s 21"]
    rgb: Float[Tensor, "v 3 h w"]
    alpha: Float[Tensor, "v 1 h w"]

    @property
    def regularizers(self) -> Float[Tensor, ""]:
        """A scalar that the fields' gradients come from."""
        return self.sdf.mean() + self.deformation.mean() + self.weights.square().mean()


def sphere_cells(config: MeshConfig) -> SurfaceCells:
    """Where the sphere's surface runs through the grid: counted, on the CPU."""
    with torch.device("cpu"):
        distances = grid_vertices(config.grid_resolution, config.grid_size).norm(dim=1) - _RADIUS
        return find_surface(distances, config.grid_resolution)


def stand_in(
    synthesizer: MeshSynthesizer,
    cells: SurfaceCells,
    planes: Float[Tensor, "3 c r r"],
    views: int,
    size: tuple[int, int],
) -> StandIn:
    """The networks of stage 2 on one object's planes, which may be on the meta device.

    Distances on the whole grid, deformation and weights at the cells, colour at the pixels of
    `views` pictures of (height, width) that show the object.
    """
    config, device = synthesizer.config, planes.device
    vertices = cells.corners.unique().to(device)
    moved = {name: value.to(device) for name, value in vars(cells).items()}
    features = synthesizer.features(planes)
    raw, _ = synthesizer.weights(features, dataclasses.replace(cells, **moved))
    pixels = views * math.prod(size)
    seen = torch.zeros(round(_SEEN_SHARE * pixels), 3, device=device)
    colours = synthesizer.colour(planes, seen)
    pictures = F.pad(colours, (0, 1, 0, pixels - len(colours))).view(views, *size, 4)
    return StandIn(
        sdf=synthesizer.distances(planes[None])[0],
        deformation=synthesizer.decoder.deformation(features.at(vertices), config.grid_resolution),
        weights=raw,
        rgb=pictures[..., :3].movedim(-1, -3),
        alpha=pictures[..., 3:].movedim(-1, -3),
    )
