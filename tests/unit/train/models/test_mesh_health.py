"""Numbers that show whether predicted meshes collapse, fold over, or leave the view."""

import pytest
import torch
import trimesh

from train.models.pixel2mesh.mesh_health import (
    behind_share,
    face_pairs,
    folded_share,
    relative_extent,
    relative_movement,
)

BALL = trimesh.creation.icosphere(subdivisions=2, radius=0.3)
VERTICES = torch.tensor(BALL.vertices, dtype=torch.float32) - torch.tensor([0, 0, 0.8])
FACES = torch.tensor(BALL.faces)


def test_pairs_of_faces_share_an_edge():
    pairs = face_pairs(FACES)
    expected = {tuple(sorted(pair)) for pair in BALL.face_adjacency.tolist()}
    assert {tuple(sorted(pair)) for pair in pairs.tolist()} == expected
    assert len(pairs) == len(BALL.edges_unique)
    # Without one face, the mesh has three edges less with two faces.
    assert len(face_pairs(FACES[1:])) == len(pairs) - 3


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.0])
def test_the_extent_is_the_size_relative_to_the_true_one(scale):
    meshes = torch.stack([VERTICES * scale, VERTICES * scale + 5])
    extent = relative_extent(meshes, VERTICES.expand(2, -1, -1))
    torch.testing.assert_close(extent, torch.full((2,), scale), atol=1e-5, rtol=1e-5)
    assert relative_extent(VERTICES[None], torch.ones(1, 5, 3)).isfinite().all()


def test_movement_is_relative_to_the_true_size():
    meshes, moved = VERTICES.expand(2, -1, -1), torch.stack([VERTICES, VERTICES + 1])
    movement = relative_movement(meshes, moved, meshes)
    assert movement[0] == 0
    assert float(movement[1]) == pytest.approx(3**0.5 / 0.3, rel=1e-3)


def test_folded_edges_are_counted():
    pairs = face_pairs(FACES)
    tangled = VERTICES[torch.randperm(len(VERTICES), generator=torch.Generator().manual_seed(0))]
    dented = VERTICES.clone()
    dented[0] *= -1
    shares = folded_share(torch.stack([VERTICES, -VERTICES, dented, tangled]), FACES, pairs)
    assert shares[:2].tolist() == [0, 0]
    assert 0 < shares[2] < 0.05
    assert shares[3] > 0.3


def test_vertices_behind_the_camera_are_counted():
    moved = VERTICES + torch.tensor([0, 0, 0.8])
    shares = behind_share(torch.stack([VERTICES, moved, VERTICES + 5]), 0.01)
    assert shares[0] == 0
    assert 0.4 < shares[1] < 0.6
    assert shares[2] == 1
