"""The mesh variant: stage 2 of InstantMesh (arXiv 2404.07191, section 3.2).

Triplanes give distances on a grid, FlexiCubes a mesh, a rasterizer its views, in which colour is
looked up at every visible point.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from core.config import Config
from train.models.lrm.mesh_fields import GridFeatures, MeshDecoder, in_chunks
from train.models.lrm.mesh_render import MeshViews, render_mesh
from train.models.surfaces.flexicubes import (
    CubeWeights,
    Surface,
    SurfaceCells,
    cube_corners,
    find_surface,
    grid_vertices,
    shape_surface,
)
from train.models.surfaces.rasterize import RasterizerName, open_rasterizer

__all__ = ["Geometry", "MeshConfig", "MeshSynthesizer"]

_LEAST = 1e-4
"""Distance that a vertex gets at least when its sign is turned."""


class MeshConfig(Config):
    """The grid, its decoder and the renderer; the defaults are InstantMesh's."""

    decoder_width: PositiveInt = 64
    decoder_hidden_layers: PositiveInt = 3
    """Width and depth must be those of the stage-1 decoder that it starts from."""
    grid_resolution: int = Field(default=128, ge=4)
    """Cubes along a side of FlexiCubes' grid."""
    grid_size: PositiveFloat = 2.1
    """Side of the grid in world units, around the origin."""
    weight_scale: float = Field(default=0.5, gt=0, lt=1)
    """How far FlexiCubes' weights may leave 1."""
    points_per_chunk: PositiveInt = 2**19
    """Points that a network sees at once: bounds the memory."""
    checkpoint_chunks: bool = True
    """Whether the backward pass computes each chunk again instead of keeping its activations."""
    rasterizer: RasterizerName = "auto"
    """torch runs everywhere; auto is nvdiffrast on CUDA where it is installed."""
    published_repair: bool = False
    """Leave surfaces open at the grid's border, and turn empty shapes inside out, as released."""
    published_weights: bool = False
    """Compute the weights of all cubes, not only of those with surface, as released."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """The meshes of b objects and what is regularized of them."""

    surfaces: list[Surface]
    sdf: Float[Tensor, "b v"]
    """Negative inside; after the repair."""
    weights: Float[Tensor, "w 21"]
    """FlexiCubes' raw weights that were computed, of all objects."""
    repaired: Bool[Tensor, "b"]
    """Objects that had no surface of their own."""

    @property
    def deviation(self) -> Float[Tensor, ""]:
        """Mean of L_dev over all dual vertices and their edges."""
        return _mean(torch.cat([surface.deviation for surface in self.surfaces]))

    @property
    def weight_size(self) -> Float[Tensor, ""]:
        """Mean of the squared weights."""
        return _mean(self.weights.square())


class MeshSynthesizer(nn.Module):
    """Meshes of triplanes and their views: the `synthesizer` of the whole model in stage 2."""

    outside: Tensor

    def __init__(self, config: MeshConfig, plane_channels: int) -> None:
        super().__init__()
        self.config = config
        self.decoder = MeshDecoder(
            3 * plane_channels, config.decoder_width, config.decoder_hidden_layers
        )
        grid = grid_vertices(config.grid_resolution, config.grid_size)
        reach = grid.abs().amax(dim=1)
        border = reach > config.grid_size / 2 * (1 - 1 / config.grid_resolution)
        # Where the radiance field of stage 1 is empty by definition, and the grid's border.
        self.register_buffer("outside", (reach > 1) | border, persistent=False)

    def distances(self, planes: Float[Tensor, "b 3 c r r"]) -> Float[Tensor, "b v"]:
        """The predicted signed distances at the grid's vertices, negative inside, not repaired."""
        net, config = self.decoder.net_sdf, self.config
        size, recompute = config.points_per_chunk, config.checkpoint_chunks
        return torch.stack([self.features(own).scalar(net, size, recompute) for own in planes])

    def geometry(self, planes: Float[Tensor, "b 3 c r r"], *, centred: bool = True) -> Geometry:
        """The mesh of each object; `centred`: as training wants it (see `shape_surface`)."""
        config = self.config
        repair = _published_repair if config.published_repair else self._repair
        sdf, repaired = repair(self.distances(planes))
        surfaces, weights = [], []
        for own, distances, is_repaired in zip(planes, sdf, repaired, strict=True):
            frozen = config.published_repair and bool(is_repaired)
            surface, raw = self._surface(self.features(own), distances, centred, frozen)
            surfaces.append(surface)
            weights.append(raw)
        return Geometry(surfaces=surfaces, sdf=sdf, weights=torch.cat(weights), repaired=repaired)

    def render(
        self,
        planes: Float[Tensor, "b 3 c r r"],
        geometry: Geometry,
        camera_to_world: Float[Tensor, "b v 4 4"],
        intrinsics: Float[Tensor, "b v 4"],
        size: tuple[int, int],
    ) -> MeshViews:
        """Views of each object's mesh as (height, width) images; every view has its own lens."""
        rasterizer = open_rasterizer(self.config.rasterizer, planes.device)
        return MeshViews.stack(
            [
                render_mesh(
                    surface.vertices,
                    surface.faces,
                    partial(self.colour, own),
                    cameras,
                    lenses,
                    size,
                    rasterizer,
                )
                for own, surface, cameras, lenses in zip(
                    planes, geometry.surfaces, camera_to_world, intrinsics, strict=True
                )
            ]
        )

    def forward(
        self,
        planes: Float[Tensor, "b 3 c r r"],
        camera_to_world: Float[Tensor, "b v 4 4"],
        intrinsics: Float[Tensor, "b v 4"],
        size: tuple[int, int],
    ) -> tuple[MeshViews, Geometry]:
        """Extract the meshes for training and render them."""
        geometry = self.geometry(planes)
        return self.render(planes, geometry, camera_to_world, intrinsics, size), geometry

    def colour(
        self, planes: Float[Tensor, "3 c r r"], points: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "n 3"]:
        """The colour of one object at world points; up to 0.001 past [0, 1]."""
        config = self.config
        chunks = in_chunks(
            lambda some: self.decoder.colour(planes, some),
            points,
            config.points_per_chunk,
            config.checkpoint_chunks,
        )
        return torch.cat(list(chunks))

    def features(self, planes: Float[Tensor, "3 c r r"]) -> GridFeatures:
        """What one object's planes say at the vertices of its grid."""
        half, side = self.config.grid_size / 2, self.config.grid_resolution + 1
        return GridFeatures(planes, torch.linspace(-half, half, side, device=planes.device))

    def _surface(
        self, features: GridFeatures, sdf: Float[Tensor, "v"], centred: bool, frozen: bool
    ) -> tuple[Surface, Float[Tensor, "s 21"]]:
        """One object's mesh and its weights; `frozen`: its deformation gets no gradient."""
        resolution = self.config.grid_resolution
        cells = find_surface(sdf, resolution)
        # A vertex at no cube with surface does not move anything.
        vertices = cells.corners.unique()
        moved = self.decoder.deformation(features.at(vertices), resolution)
        moved = moved.detach() if frozen else moved
        grid = grid_vertices(resolution, self.config.grid_size, sdf.device)
        deformed = grid.index_put((vertices,), grid[vertices] + moved)
        raw, own = self.weights(features, cells)
        weights = CubeWeights.from_raw(own, self.config.weight_scale)
        return shape_surface(cells, deformed, sdf, weights, centred=centred), raw

    def weights(
        self, features: GridFeatures, cells: SurfaceCells
    ) -> tuple[Float[Tensor, "s 21"], Float[Tensor, "t 21"]]:
        """The computed weights, and those of the cubes with surface."""
        config = self.config
        corners = cells.corners
        if config.published_weights:
            cubes = torch.arange(config.grid_resolution**3, device=corners.device)
            corners = cube_corners(cubes, config.grid_resolution)
        chunks = in_chunks(
            lambda some: self.decoder.weights(features.at(some)),
            corners,
            max(config.points_per_chunk // 8, 1),
            config.checkpoint_chunks,
        )
        raw = torch.cat(list(chunks))
        return raw, raw[cells.cubes] if config.published_weights else raw

    def _repair(self, sdf: Float[Tensor, "b v"]) -> tuple[Tensor, Tensor]:
        """Nothing reaches out of the box, and nothing is quite empty.

        A vertex outside the box that would be inside the object is turned, and so is a block in the
        middle of an object that has no inside at all: each to its own distance with the other sign,
        without a gradient. The neighbours keep theirs, so a picture that lacks the object makes the
        block grow, and one that shows too much pushes the surface in from the border. The block is
        an eighth of the grid wide, because what falls between the pixels is in no picture.
        """
        turned = sdf.detach().abs().clamp(min=_LEAST)
        sdf = torch.where(self.outside & (sdf < 0), turned, sdf)
        empty = ~(sdf < 0).any(dim=1)
        resolution = self.config.grid_resolution
        reach = max(resolution // 16, 1)
        block = slice(resolution // 2 - reach, resolution // 2 + reach + 1)
        middle = torch.zeros_like(self.outside)
        middle.view((resolution + 1,) * 3)[block, block, block] = True
        return torch.where(empty[:, None] & middle, -turned, sdf), empty


def _published_repair(sdf: Float[Tensor, "b v"]) -> tuple[Tensor, Tensor]:
    """What the released code does about objects without surface: it makes them inside out.

    Signs count in the inner vertices. The middle becomes outside and the two outermost layers
    inside, by the extremes of the whole batch, and the object gets no gradient.
    """
    side = round(sdf.shape[1] ** (1 / 3))
    grid = sdf.unflatten(1, (side, side, side))
    inner = grid[:, 1:-1, 1:-1, 1:-1].flatten(1)
    empty = (inner > 0).all(dim=1) | (inner < 0).all(dim=1)
    shell = torch.ones_like(grid[0], dtype=torch.bool)
    shell[2:-2, 2:-2, 2:-2] = False
    middle = ((side - 1) // 2 + 1,) * 3
    repaired = torch.where(shell, -1 - sdf.detach().max(), grid.detach())
    repaired[(slice(None), *middle)] = 1 - sdf.detach().min()
    return torch.where(empty[:, None, None, None], repaired, grid).flatten(1), empty


def _mean(values: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """0 of nothing, and still part of the graph."""
    return values.sum() / max(values.numel(), 1)
