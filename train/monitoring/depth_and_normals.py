"""Depth and normals as images for people."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from train.models.lrm.rays import camera_rays

__all__ = ["depth_normals", "depths_to_images", "normals_to_images"]


def depths_to_images(
    depths: Sequence[Float[Tensor, "v 1 _ _"]], alphas: Sequence[Float[Tensor, "v 1 _ _"]]
) -> list[Float[Tensor, "v 1 _ _"]]:
    """Return planar depths as grey images on one common scale: nearest white, farthest dark grey.

    The background is black. The images may differ in size.
    """
    pairs = list(zip(depths, alphas, strict=True))
    visible = torch.cat([depth[alpha > 0.5] for depth, alpha in pairs])
    if not len(visible):
        return [torch.zeros_like(depth) for depth in depths]
    near, span = visible.min(), (visible.max() - visible.min()).clamp(min=1e-6)
    return [(1 - 0.8 * ((depth - near) / span).clamp(0, 1)) * alpha for depth, alpha in pairs]


def normals_to_images(
    normals: Float[Tensor, "v 3 h w"], alpha: Float[Tensor, "v 1 h w"]
) -> Float[Tensor, "v 3 h w"]:
    """Return world normals as colours (n + 1) / 2 on white."""
    return (normals + 1) / 2 * alpha + (1 - alpha)


def depth_normals(
    depth: Float[Tensor, "v 1 h w"],
    camera_to_world: Float[Tensor, "v 4 4"],
    intrinsics: Float[Tensor, "v 4"],
) -> Float[Tensor, "v 3 h w"]:
    """Return world normals of planar depth by central differences, facing the camera.

    They are inaccurate at depth edges.
    """
    size = (depth.shape[-2], depth.shape[-1])
    rays = camera_rays(camera_to_world, intrinsics, size)
    lengths = depth.flatten(1) / rays.cosines
    points = (rays.origins + lengths[..., None] * rays.directions).unflatten(1, size)
    grid = F.pad(points.movedim(-1, 1), (1, 1, 1, 1), mode="replicate")
    right = grid[..., 1:-1, 2:] - grid[..., 1:-1, :-2]
    down = grid[..., 2:, 1:-1] - grid[..., :-2, 1:-1]
    return F.normalize(torch.linalg.cross(down, right, dim=1), dim=1)
