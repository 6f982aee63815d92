"""Measures of a fit: PSNR of views, and distance of its mesh from the true surface."""

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
"""Largest distance, in world units, between a point and the depth map that shows it."""


def mean_psnr(shown: Float[Tensor, "v 3 h w"], target: Float[Tensor, "v 3 h w"]) -> float:
    """Return the mean PSNR of the views in dB; RGB in [0, 1], rendered values are clamped."""
    return float(psnr(shown.clamp(0, 1), target).mean())


def sample_mesh(
    vertices: Float32[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], count: int, seed: int
) -> tuple[Float[np.ndarray, "k 3"], Float[np.ndarray, "k 3"]]:
    """Return points spread evenly over a mesh, and the normals of their triangles by winding.

    Raises ValueError if the mesh has no area.
    """
    a, b, c = vertices[faces].astype(np.float64).transpose(1, 0, 2)
    cross = np.cross(b - a, c - a)
    areas = np.linalg.norm(cross, axis=1)
    if not areas.sum() > 0:
        raise ValueError("the mesh has no area")
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(faces), count, p=areas / areas.sum())
    u, v = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    points = (1 - u) * a[chosen] + u * (1 - v) * b[chosen] + u * v * c[chosen]
    return points, cross[chosen] / areas[chosen, None]


def surface_distance(
    first: Float[np.ndarray, "k 3"], second: Float[np.ndarray, "n 3"]
) -> tuple[float, float]:
    """Return the mean distances from the first point set to the second, and back.

    A distance is that to the nearest point. The mean of both values is the Chamfer distance of
    train.evaluation.metrics.
    """
    match = match_points(torch.from_numpy(first)[None], torch.from_numpy(second)[None])
    return float(match.to_target.mean()), float(match.to_points.mean())


def angles(
    points: Float[np.ndarray, "k 3"],
    normals: Float[np.ndarray, "k 3"],
    true_points: Float[np.ndarray, "n 3"],
    true_normals: Float[np.ndarray, "n 3"],
) -> Float[np.ndarray, "k"]:
    """Return the angle between each normal and that of the nearest true point, 0 to 180 degrees."""
    nearest = cKDTree(true_points).query(points, workers=-1)[1]
    cosines = (normals * true_normals[nearest]).sum(axis=1)
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))


def seen_points(
    points: Float[np.ndarray, "n 3"], cameras: Sequence[Camera], depth: Float32[np.ndarray, "v h w"]
) -> Bool[np.ndarray, "n"]:
    """Return which points are visible in a view, by the planar depth maps of the views."""
    visible = np.zeros(len(points), dtype=bool)
    height, width = depth.shape[1:]
    for camera, depth_map in zip(cameras, depth, strict=True):
        image, distance = project(camera, points)
        pixels = np.floor(image * (width, height)).astype(int)
        inside = ((pixels >= 0) & (pixels < (width, height))).all(axis=1)
        column, row = np.where(inside[:, None], pixels, 0).T
        visible |= inside & (np.abs(depth_map[row, column] - distance) < _SAME_DEPTH)
    return visible
