"""The mesh synthesizer: stage 2 of InstantMesh (arXiv 2404.07191, section 3.2).

Triplanes are decoded to signed distances on a grid, FlexiCubes extracts a mesh from them, and a
rasterizer renders it with the colour field evaluated at every visible point.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from core.config import Config, PositiveFloat, PositiveInt
from train.models.lrm.mesh_fields import GridFeatures, MeshDecoder, in_chunks
from train.models.lrm.mesh_render import MeshViews, render_mesh
from train.models.surfaces.flexicubes import (
    CubeWeights,
    Surface,
    SurfaceCells,
    cube_corners,
    find_surface,
    grid_axis,
    grid_vertices,
    shape_surface,
)
from train.models.surfaces.rasterize import RasterizerName, open_rasterizer

__all__ = ["Geometry", "MeshConfig", "MeshSynthesizer"]

_MIN_DISTANCE = 1e-4
"""Smallest absolute distance, in world units, of a vertex whose sign is flipped."""


class MeshConfig(Config):
    """Sizes of the grid and its decoder, and the renderer; the defaults are InstantMesh's."""

    decoder_width: PositiveInt = 64
    """Width of the decoder's hidden layers; must equal that of the stage-1 model."""
    decoder_hidden_layers: PositiveInt = 3
    """Number of the decoder's hidden layers; must equal that of the stage-1 model."""
    grid_resolution: int = Field(default=128, ge=4, le=1024)
    """Number of cubes along a side of FlexiCubes' grid."""
    grid_size: PositiveFloat = 2.1
    """Side of the grid, centred at the origin, in world units."""
    weight_scale: float = Field(default=0.5, gt=0, lt=1)
    """Largest deviation of FlexiCubes' weights from 1."""
    points_per_chunk: PositiveInt = 2**19
    """Number of points that a network evaluates at once: bounds the memory."""
    checkpoint_chunks: bool = True
    """Whether the backward pass recomputes each chunk instead of keeping its activations."""
    rasterizer: RasterizerName = "auto"
    """torch runs everywhere; auto is nvdiffrast on CUDA if installed, otherwise torch."""
    published_repair: bool = False
    """Whether surfaces may be open at the border and empty shapes become shells, as released."""
    published_weights: bool = False
    """Whether the weights of all cubes are computed, even without surface, as released."""
    published_grid: bool = False
    """Whether the grid's vertices are rounded to five decimals of its side, as released."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """The meshes of b objects, and the fields that the regularizers use."""

    surfaces: list[Surface]
    sdf: Float[Tensor, "b v"]
    """Signed distances at the grid's vertices after the repair, negative inside."""
    weights: Float[Tensor, "w 21"]
    """The computed raw FlexiCubes weights of all objects."""
    repaired: Bool[Tensor, "b"]
    """Whether an object's predicted distances had no surface."""

    @property
    def deviation(self) -> Float[Tensor, ""]:
        """Mean of L_dev over the cut edges of all dual vertices."""
        return _mean(torch.cat([surface.deviation for surface in self.surfaces]))

    @property
    def weight_size(self) -> Float[Tensor, ""]:
        """Mean of the squared weights."""
        return _mean(self.weights.square())


class MeshSynthesizer(nn.Module):
    """Extraction and rendering of meshes from triplanes: the model's `synthesizer` in stage 2."""

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
        # The region where the radiance field of stage 1 is empty by definition, and the border.
        self.register_buffer("outside", (reach > 1) | border, persistent=False)

    def distances(self, planes: Float[Tensor, "b 3 c r r"]) -> Float[Tensor, "b v"]:
        """Return the predicted signed distances at the grid's vertices, negative inside.

        They are not repaired.
        """
        net, config = self.decoder.net_sdf, self.config
        size, recompute = config.points_per_chunk, config.checkpoint_chunks
        return torch.stack([self.features(p).evaluate(net, size, recompute) for p in planes])

    def geometry(self, planes: Float[Tensor, "b 3 c r r"], *, centred: bool = True) -> Geometry:
        """Extract the mesh of each object; `centred` is for training (see `shape_surface`)."""
        config = self.config
        repair = _published_repair if config.published_repair else self._repair
        sdf, repaired = repair(self.distances(planes))
        surfaces, weights = [], []
        for object_planes, distances, is_repaired in zip(planes, sdf, repaired, strict=True):
            frozen = config.published_repair and bool(is_repaired)
            surface, raw = self._surface(self.features(object_planes), distances, centred, frozen)
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
        """Render each object's mesh as images of `size` (height, width).

        `intrinsics` may differ from view to view.
        """
        rasterizer = open_rasterizer(self.config.rasterizer, planes.device)
        return MeshViews.stack(
            [
                render_mesh(
                    surface.vertices,
                    surface.faces,
                    partial(self.colour, object_planes),
                    cameras,
                    lenses,
                    size,
                    rasterizer,
                )
                for object_planes, surface, cameras, lenses in zip(
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
        """Return the RGB of one object at world points, in [-0.001, 1.001]."""
        config = self.config
        chunks = in_chunks(
            lambda chunk: self.decoder.colour(planes, chunk),
            points,
            config.points_per_chunk,
            config.checkpoint_chunks,
        )
        return torch.cat(list(chunks))

    def features(self, planes: Float[Tensor, "3 c r r"]) -> GridFeatures:
        """Return one object's triplane features at the vertices of its grid."""
        config = self.config
        axis = grid_axis(
            config.grid_resolution,
            config.grid_size,
            planes.device,
            published=config.published_grid,
        )
        return GridFeatures(planes, axis)

    def _surface(
        self, features: GridFeatures, sdf: Float[Tensor, "v"], centred: bool, frozen: bool
    ) -> tuple[Surface, Float[Tensor, "s 21"]]:
        """Extract one object's mesh; `frozen`: its deformation gets no gradient.

        Returns the mesh and the raw weights that were computed.
        """
        config, resolution = self.config, self.config.grid_resolution
        cells = find_surface(sdf, resolution)
        # Only vertices of cubes with surface affect the mesh.
        vertices = cells.corners.unique()
        offsets = self.decoder.deformation(features.at(vertices), resolution)
        offsets = offsets.detach() if frozen else offsets
        grid = grid_vertices(
            resolution, config.grid_size, sdf.device, published=config.published_grid
        )
        deformed = grid.index_put((vertices,), grid[vertices] + offsets)
        raw, raw_at_surface = self.weights(features, cells)
        weights = CubeWeights.from_raw(raw_at_surface, config.weight_scale)
        return shape_surface(cells, deformed, sdf, weights, centred=centred), raw

    def weights(
        self, features: GridFeatures, cells: SurfaceCells
    ) -> tuple[Float[Tensor, "s 21"], Float[Tensor, "t 21"]]:
        """Return the computed raw weights, and those of the cubes with surface.

        They are the same unless `published_weights` computes the weights of all cubes.
        """
        config = self.config
        corners = cells.corners
        if config.published_weights:
            cubes = torch.arange(config.grid_resolution**3, device=corners.device)
            corners = cube_corners(cubes, config.grid_resolution)
        chunks = in_chunks(
            lambda chunk: self.decoder.weights(features.at(chunk)),
            corners,
            max(config.points_per_chunk // 8, 1),
            config.checkpoint_chunks,
        )
        raw = torch.cat(list(chunks))
        return raw, raw[cells.cubes] if config.published_weights else raw

    def _repair(self, sdf: Float[Tensor, "b v"]) -> tuple[Tensor, Tensor]:
        """Flip signs so that surfaces stay in the box and no object is empty.

        Two kinds of vertices get the opposite sign and no gradient: those outside the box that
        would be inside the object, and those of a block in the middle of the grid if the object has
        no inside. Neighbouring vertices keep their gradients, so the losses let the block grow
        where the object is missing, and move the surface inwards where it reaches too far. The
        block is an eighth of the grid wide: a smaller one could fall between the pixels of all
        views.

        Returns the distances, and which objects were empty.
        """
        flipped = sdf.detach().abs().clamp(min=_MIN_DISTANCE)
        sdf = torch.where(self.outside & (sdf < 0), flipped, sdf)
        empty = ~(sdf < 0).any(dim=1)
        resolution = self.config.grid_resolution
        reach = max(resolution // 16, 1)
        block = slice(resolution // 2 - reach, resolution // 2 + reach + 1)
        middle = torch.zeros_like(self.outside)
        middle.view((resolution + 1,) * 3)[block, block, block] = True
        return torch.where(empty[:, None] & middle, -flipped, sdf), empty


def _published_repair(sdf: Float[Tensor, "b v"]) -> tuple[Tensor, Tensor]:
    """Replace objects without surface by an inverted shell, as the released code does.

    An object is empty if all inner vertices have the same sign. Its middle vertex becomes outside
    and its two outermost layers inside, with values from the extremes of the whole batch, and it
    gets no gradient. Returns the distances, and which objects were empty.
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
    """Return the mean; for no values 0, as part of the autograd graph."""
    return values.sum() / max(values.numel(), 1)
