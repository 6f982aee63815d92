"""Scores of a predicted mesh against true points, both in the camera frame and not aligned."""

import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

from train.evaluation.metrics import chamfer_distance, match_points, squared_metrics

__all__ = ["CAMERA_SCORES", "score_camera_mesh"]

CAMERA_SCORES = ("chamfer", "chamfer_squared", "f_score_1e-4", "f_score_2e-4")


def score_camera_mesh(
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
    points: Float[Tensor, "n 3"],
    scale: float,
    seed: int,
) -> dict[str, Float[Tensor, ""]]:
    """Return the CAMERA_SCORES of a mesh, by as many points on it as there are true ones.

    chamfer is that of `train.evaluation.metrics.chamfer_distance` in world units, in which the
    object is in [-1, 1]^3; `scale` is the length of a world unit in the camera frame. The others
    are those of `squared_metrics` in the camera frame. The points are spread evenly over the mesh
    with `seed`. All are NaN if a vertex is not finite.
    """
    if not vertices.isfinite().all():
        return dict.fromkeys(CAMERA_SCORES, torch.tensor(torch.nan))
    mesh = trimesh.Trimesh(vertices.double().cpu().numpy(), faces.cpu().numpy(), process=False)
    sampled, _ = trimesh.sample.sample_surface(mesh, len(points), seed=seed)
    match = match_points(torch.from_numpy(sampled).float()[None], points.float().cpu()[None])
    scores = {"chamfer": chamfer_distance(match) / scale, **squared_metrics(match)}
    return {name: value[0] for name, value in scores.items()}
