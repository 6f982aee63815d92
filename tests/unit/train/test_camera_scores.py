"""Scores of a mesh in the camera frame: closed forms of spheres."""

import numpy as np
import pytest
import torch
import trimesh

from train.evaluation.camera_scores import CAMERA_SCORES, score_camera_mesh

CENTRE = np.array([0.0, 0.0, -0.8])
SCALE = 0.25


def ball(radius, centre=CENTRE):
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return torch.tensor(mesh.vertices + centre).float(), torch.tensor(mesh.faces)


def sphere_points(radius, count=5000):
    directions = np.random.default_rng(0).normal(size=(count, 3))
    directions *= radius / np.linalg.norm(directions, axis=1, keepdims=True)
    return torch.tensor(directions + CENTRE).float()


def scores_of(vertices, faces, points):
    scores = score_camera_mesh(vertices, faces, points, SCALE, 0)
    assert tuple(scores) == CAMERA_SCORES
    return {name: float(value) for name, value in scores.items()}


def test_concentric_spheres_have_the_distance_of_their_radii():
    scores = scores_of(*ball(0.2), sphere_points(0.3))
    # Sampling adds the distance to the nearest sample along the surface.
    assert scores["chamfer"] == pytest.approx(0.1 / SCALE, rel=0.02)
    assert scores["chamfer_squared"] == pytest.approx(1000 * 2 * 0.1**2, rel=0.02)
    assert scores["f_score_1e-4"] == scores["f_score_2e-4"] == 0


def test_equal_spheres_match_at_both_thresholds_and_a_shift_is_not_aligned():
    equal = scores_of(*ball(0.2), sphere_points(0.2))
    assert equal["chamfer"] < 0.01 / SCALE
    assert equal["f_score_1e-4"] > 0.95
    assert equal["f_score_2e-4"] > 0.99
    moved = scores_of(*ball(0.2, CENTRE + np.array([0, 0, 0.1])), sphere_points(0.2))
    assert moved["chamfer"] > 3 * equal["chamfer"]
    assert moved["f_score_2e-4"] < 0.3


def test_the_same_points_are_drawn_every_time_and_a_collapsed_mesh_has_a_score():
    vertices, faces = ball(0.2)
    points = sphere_points(0.2, 500)
    assert scores_of(vertices, faces, points) == scores_of(vertices, faces, points)
    collapsed = scores_of(torch.zeros_like(vertices) + torch.tensor(CENTRE).float(), faces, points)
    assert collapsed["chamfer"] == pytest.approx(0.2 / SCALE, rel=1e-3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_mesh_that_is_not_finite_has_no_scores(value):
    vertices, faces = ball(0.2)
    vertices[7, 1] = value
    scores = scores_of(vertices, faces, sphere_points(0.2, 50))
    assert all(np.isnan(score) for score in scores.values())
