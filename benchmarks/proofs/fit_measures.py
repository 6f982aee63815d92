"""How well a fit shows held-out views, and how close its mesh is to the true surface."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from scipy.spatial import cKDTree
from torch import Tensor

from dataset.cameras import Camera, project
from train.evaluation.metrics import match_points, psnr

__all__ = ["angles", "mean_psnr", "sample_mesh", "seen_points", "surface_distance"]

_SAME_DEPTH = 0.02
"""World units within which a point is the one that a picture of depth shows."""


def mean_psnr(shown: Float[Tensor, "v 3 h w"], target: Float[Tensor, "v 3 h w"]) -> float:
    """The mean over the views of their PSNR in dB; RGB in [0, 1], what is shown is clamped."""
    return float(psnr(shown.clamp(0, 1), target).mean())


def sample_mesh(
    vertices: Float32[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], count: int, seed: int
) -> tuple[Float[np.ndarray, "k 3"], Float[np.ndarray, "k 3"]]:
    """Points spread evenly over a mesh, and the normals of their triangles by winding.

    Raises ValueError for a mesh without area.
    """
    a, b, c = vertices[faces].astype(np.float64).transpose(1, 0, 2)
    across = np.cross(b - a, c - a)
    areas = np.linalg.norm(across, axis=1)
    if not areas.sum() > 0:
        raise ValueError("the mesh has no area")
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(faces), count, p=areas / areas.sum())
    root, share = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    points = (1 - root) * a[chosen] + root * (1 - share) * b[chosen] + root * share * c[chosen]
    return points, across[chosen] / areas[chosen, None]


def surface_distance(
    first: Float[np.ndarray, "k 3"], second: Float[np.ndarray, "n 3"]
) -> tuple[float, float]:
    """Mean distance to the nearest point of the other set, from the first and from the second.

    Their mean is the Chamfer distance of train.evaluation.metrics.
    """
    match = match_points(torch.from_numpy(first)[None], torch.from_numpy(second)[None])
    return float(match.to_target.mean()), float(match.to_points.mean())


def angles(
    points: Float[np.ndarray, "k 3"],
    normals: Float[np.ndarray, "k 3"],
    true_points: Float[np.ndarray, "n 3"],
    true_normals: Float[np.ndarray, "n 3"],
) -> Float[np.ndarray, "k"]:
    """Degrees in [0, 180] between each normal and that of the nearest true point."""
    nearest = cKDTree(true_points).query(points, workers=-1)[1]
    cosines = (normals * true_normals[nearest]).sum(axis=1)
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))


def seen_points(
    points: Float[np.ndarray, "n 3"], cameras: Sequence[Camera], depth: Float32[np.ndarray, "v h w"]
) -> Bool[np.ndarray, "n"]:
    """The points that some view shows, by the views' pictures of planar depth."""
    seen = np.zeros(len(points), dtype=bool)
    height, width = depth.shape[1:]
    for camera, picture in zip(cameras, depth, strict=True):
        image, distance = project(camera, points)
        pixels = np.floor(image * (width, height)).astype(int)
        inside = ((pixels >= 0) & (pixels < (width, height))).all(axis=1)
        column, row = np.where(inside[:, None], pixels, 0).T
        seen |= inside & (np.abs(picture[row, column] - distance) < _SAME_DEPTH)
    return seen
