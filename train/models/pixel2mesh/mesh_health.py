"""Numbers that show whether predicted meshes collapse, fold over, or leave the view."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["behind_share", "face_pairs", "folded_share", "relative_extent", "relative_movement"]

_MIN_EXTENT = 1e-6
"""Smallest extent of true points that is divided by, in camera units."""


def relative_extent(
    vertices: Float[Tensor, "b v 3"], points: Float[Tensor, "b n 3"]
) -> Float[Tensor, "b"]:
    """Return the size of each mesh relative to that of the true points: 1 is right, 0 collapsed.

    The size is the root mean square distance from the centre.
    """
    return _extent(vertices) / _extent(points).clamp(min=_MIN_EXTENT)


def relative_movement(
    before: Float[Tensor, "b v 3"], after: Float[Tensor, "b v 3"], points: Float[Tensor, "b n 3"]
) -> Float[Tensor, "b"]:
    """Return the mean distance between two positions of vertices, relative to the true size."""
    distance = (after - before).float().norm(dim=-1).mean(dim=1)
    return distance / _extent(points).clamp(min=_MIN_EXTENT)


def _extent(points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b"]:
    """Return the root mean square distance of points from their mean."""
    centred = points.float() - points.float().mean(dim=1, keepdim=True)
    return centred.square().sum(dim=-1).mean(dim=1).sqrt()


def behind_share(vertices: Float[Tensor, "b v 3"], min_depth: float) -> Float[Tensor, "b"]:
    """Return the share of the vertices that are nearer than `min_depth`, or behind the camera.

    The camera is in the origin and looks along -z. Such vertices are projected as if they had this
    depth.
    """
    return (-vertices[..., 2] < min_depth).float().mean(dim=1)


def face_pairs(faces: Int[Tensor, "f 3"]) -> Int[Tensor, "e 2"]:
    """Return the two faces at each edge; edges of other numbers of faces are left out."""
    ends = torch.stack([faces, faces.roll(-1, 1)], dim=-1).flatten(0, 1).sort(dim=-1).values
    _, edge, counts = ends.unique(dim=0, return_inverse=True, return_counts=True)
    order = edge.argsort(stable=True)
    return (order[counts[edge[order]] == 2] // 3).view(-1, 2)


def folded_share(
    vertices: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"], pairs: Int[Tensor, "e 2"]
) -> Float[Tensor, "b"]:
    """Return the share of the edges at which a mesh is folded by more than 90 degrees.

    `pairs` are the `face_pairs` of the faces. A smooth mesh has none; a tangled one up to half.
    """
    first, second, third = vertices.float()[:, faces].unbind(dim=2)
    normals = torch.linalg.cross(second - first, third - first)
    return ((normals[:, pairs[:, 0]] * normals[:, pairs[:, 1]]).sum(dim=-1) < 0).float().mean(dim=1)
