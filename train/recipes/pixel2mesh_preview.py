"""The preview of predicted meshes: over the picture, and from the side, beside the true surface."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from train.models.lrm.mesh_render import vertex_normals
from train.models.pixel2mesh.template_mesh import CENTRE
from train.models.surfaces.rasterize import clip_positions
from train.models.surfaces.rasterize_torch import TorchRasterizer
from train.monitoring.depth_and_normals import normals_to_images
from train.monitoring.preview import draw_rows

__all__ = ["mesh_picture"]

_MESH_COLOUR = (0.95, 0.6, 0.25)
_COVERAGE = 0.7
"""Opacity of the mesh over the picture."""
_SPLATS = 2
"""Width and height of a true point in pixels."""


def mesh_picture(
    image: Float[Tensor, "3 s s"],
    intrinsics: Float[Tensor, "4"],
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
    points: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    side: int,
) -> Image.Image:
    """Draw the picture, and the mesh (rows that end with ^) beside the true surface.

    The left column is seen from the picture's camera, the right one from its right-hand side. Mesh
    and true points are in the camera frame, normals are shown as colours (n + 1) / 2 in its axes.
    """
    tensors = (image, intrinsics, vertices, faces, points, normals)
    image, intrinsics, vertices, faces, points, normals = (one.detach().cpu() for one in tensors)
    cameras = torch.stack([torch.eye(4), _side_camera()])
    size, lenses = (side, side), intrinsics.float().expand(2, 4)
    raster = TorchRasterizer()(clip_positions(vertices, cameras, lenses), faces, size)
    own = F.normalize(raster.interpolate(vertex_normals(vertices.float(), faces)), dim=-1)
    mask = raster.antialias(raster.hit[..., None].float()).movedim(-1, 1)
    own = raster.antialias(own * raster.hit[..., None]).movedim(-1, 1)
    background = torch.ones(2, 3, *size)
    background[0] = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    towards = cameras[:, :3, 2, None, None]
    # A face that is seen from its back is dark.
    shade = 0.25 + 0.75 * (own * towards).sum(dim=1, keepdim=True).clamp(min=0)
    paint = torch.tensor(_MESH_COLOUR)[:, None, None] * shade
    over = background + _COVERAGE * (paint * mask - background * mask)
    true, true_mask = _splat(clip_positions(points, cameras, lenses), normals, size)
    rows = {"input": image[None], "mesh^": over}
    rows |= {"normal": normals_to_images(true, true_mask)}
    rows |= {"normal^": own / 2 + 0.5 * mask + 1 - mask}
    return draw_rows(rows, size)


def _side_camera() -> Float[Tensor, "4 4"]:
    """Return the picture's camera turned by 90 degrees about the vertical axis of the object."""
    depth = CENTRE[2]
    rows = [[0, 0, 1, -depth], [0, 1, 0, 0], [-1, 0, 0, depth], [0, 0, 0, 1]]
    return torch.tensor(rows, dtype=torch.float32)


def _splat(
    clip: Float[Tensor, "v n 4"], values: Float[Tensor, "n 3"], size: Sequence[int]
) -> tuple[Float[Tensor, "v 3 h w"], Float[Tensor, "v 1 h w"]]:
    """Draw the nearest point at each pixel as a small square; return values and a mask."""
    height, width = size
    image, mask = torch.zeros(len(clip), 3, height, width), torch.zeros(len(clip), 1, height, width)
    for view, corners in enumerate(clip):
        w = corners[:, 3]
        centre = (corners[:, :2] / w[:, None].clamp(min=1e-6) + 1) / 2
        left = (centre * torch.tensor([width, height]) - _SPLATS / 2).round().long()
        depths = torch.full((height * width,), torch.inf)
        pixels, inside = [], []
        for offset in torch.cartesian_prod(torch.arange(_SPLATS), torch.arange(_SPLATS)):
            column, row = (left + offset).unbind(-1)
            kept = (w > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            pixels.append((row * width + column)[kept])
            inside.append(kept.nonzero()[:, 0])
        pixel, point = torch.cat(pixels), torch.cat(inside)
        depths.scatter_reduce_(0, pixel, w[point], "amin")
        nearest = w[point] == depths[pixel]
        image[view].flatten(1)[:, pixel[nearest]] = values[point[nearest]].float().T
        mask[view].flatten(1)[:, pixel] = 1.0
    return image, mask
