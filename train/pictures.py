"""Depth and normals as pictures that people can read."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from train.models.rays import camera_rays

__all__ = ["depth_normals", "picture_depths", "picture_normals"]


def picture_depths(
    depths: dict[str, Float[Tensor, "v 1 h w"]], alphas: dict[str, Float[Tensor, "v 1 h w"]]
) -> dict[str, Float[Tensor, "v 1 h w"]]:
    """Planar depths on one common scale: the nearest white, the farthest grey, nothing black."""
    seen = torch.cat([depth[alphas[name] > 0.5].flatten() for name, depth in depths.items()])
    if not len(seen):
        return {name: torch.zeros_like(depth) for name, depth in depths.items()}
    near, span = seen.min(), (seen.max() - seen.min()).clamp(min=1e-6)
    return {
        name: (1 - 0.8 * ((depth - near) / span).clamp(0, 1)) * alphas[name]
        for name, depth in depths.items()
    }


def picture_normals(
    normals: Float[Tensor, "v 3 h w"], alpha: Float[Tensor, "v 1 h w"]
) -> Float[Tensor, "v 3 h w"]:
    """(n + 1) / 2 on white."""
    return (normals + 1) / 2 * alpha + (1 - alpha)


def depth_normals(
    depth: Float[Tensor, "v 1 h w"],
    camera_to_world: Float[Tensor, "v 4 4"],
    intrinsics: Float[Tensor, "v 4"],
) -> Float[Tensor, "v 3 h w"]:
    """World normals of planar depth by central differences, towards the camera; rough at edges."""
    size = (depth.shape[-2], depth.shape[-1])
    rays = camera_rays(camera_to_world, intrinsics, size)
    lengths = depth.flatten(1) / rays.cosines
    points = (rays.origins + lengths[..., None] * rays.directions).unflatten(1, size)
    grid = F.pad(points.movedim(-1, 1), (1, 1, 1, 1), mode="replicate")
    right = grid[..., 1:-1, 2:] - grid[..., 1:-1, :-2]
    down = grid[..., 2:, 1:-1] - grid[..., :-2, 1:-1]
    return F.normalize(torch.linalg.cross(down, right, dim=1), dim=1)
