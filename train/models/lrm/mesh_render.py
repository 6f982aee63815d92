"""Differentiable rendering of a mesh: colour, opacity, depth and normals."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from train.models.surfaces.rasterize import Rasterizer, clip_positions

__all__ = ["MeshViews", "render_mesh", "vertex_normals"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MeshViews:
    """Images of v views of each of b objects.

    As in the dataset, colour and opacity are antialiased, while depth and normals are those of the
    surface point at the pixel's centre, and 0 without one.
    """

    rgb: Float[Tensor, "*b v 3 h w"]
    """RGB on white, in [-0.001, 1.001]."""
    alpha: Float[Tensor, "*b v 1 h w"]
    depth: Float[Tensor, "*b v 1 h w"]
    """Planar depth in world units."""
    normals: Float[Tensor, "*b v 3 h w"]
    """Outward unit vectors in world axes."""

    @classmethod
    def stack(cls, objects: "list[MeshViews]") -> "MeshViews":
        """Return the views of several objects as a batch."""
        names = ("rgb", "alpha", "depth", "normals")
        return cls(**{name: torch.stack([getattr(o, name) for o in objects]) for name in names})


def vertex_normals(
    vertices: Float[Tensor, "n 3"], faces: Int[Tensor, "m 3"]
) -> Float[Tensor, "n 3"]:
    """Return unit vertex normals: means of the faces' normals, weighted by area.

    A vertex whose normals cancel out gets (0, 0, 1).
    """
    a, b, c = vertices[faces.long()].unbind(dim=1)
    twice_area = torch.linalg.cross(b - a, c - a)
    sums = torch.zeros_like(vertices).index_put(
        (faces.long().flatten(),), twice_area.repeat_interleave(3, dim=0), accumulate=True
    )
    lengths = sums.square().sum(dim=1, keepdim=True)
    up = torch.tensor([0.0, 0.0, 1.0], device=vertices.device)
    return F.normalize(sums.where(lengths > torch.finfo(sums.dtype).tiny, up), dim=1)


def render_mesh(
    vertices: Float[Tensor, "n 3"],
    faces: Int[Tensor, "m 3"],
    colour: Callable[[Float[Tensor, "k 3"]], Float[Tensor, "k 3"]],
    camera_to_world: Float[Tensor, "v 4 4"],
    intrinsics: Float[Tensor, "v 4"],
    size: tuple[int, int],
    rasterizer: Rasterizer,
) -> MeshViews:
    """Render one mesh as images of `size` (height, width).

    `colour` returns the RGB of surface points.
    """
    clip = clip_positions(vertices, camera_to_world, intrinsics)
    raster = rasterizer(clip, faces, size)
    hit = raster.hit
    attributes = torch.cat([vertices, vertex_normals(vertices, faces)], dim=1)
    points, normals = raster.interpolate(attributes).split(3, dim=-1)
    depth = raster.interpolate(clip[..., 3:])
    rgb = torch.ones_like(points).index_put((hit,), colour(points[hit]))
    smooth = raster.antialias(torch.cat([rgb, hit[..., None].to(rgb.dtype)], dim=-1))
    return MeshViews(
        rgb=smooth[..., :3].movedim(-1, -3),
        alpha=smooth[..., 3:].movedim(-1, -3),
        depth=depth.movedim(-1, -3),
        normals=F.normalize(normals, dim=-1).movedim(-1, -3),
    )
