"""The preview of predicted meshes: position, sides, and the true surface for comparison."""

import numpy as np
import pytest
import torch
import trimesh

from train.recipes.pixel2mesh_preview import mesh_picture

SIDE = 96
INTRINSICS = torch.tensor([1.1, 1.1, 0.5, 0.5])


def shape(kind):
    """Return vertices, faces, points and normals of a shape in front of the camera."""
    if kind == "ball":
        mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.2)
    else:  # three boxes to the right, upwards, and towards the camera: no mirror image is equal
        arms = [((0.3, 0.08, 0.08), 0), ((0.08, 0.2, 0.08), 1), ((0.08, 0.08, 0.25), 2)]
        boxes = []
        for extents, axis in arms:
            offset = np.zeros(3)
            offset[axis] = extents[axis] / 2
            transform = trimesh.transformations.translation_matrix(offset)
            boxes.append(trimesh.creation.box(extents, transform).subdivide().subdivide())
        mesh = trimesh.util.concatenate(boxes)
    mesh.apply_translation([0.02, 0.03, -0.8])
    points, faces = trimesh.sample.sample_surface(mesh, 9000, seed=0)
    arrays = mesh.vertices, mesh.faces, points, mesh.face_normals[faces]
    vertices, indices, points, normals = (torch.tensor(np.asarray(one)) for one in arrays)
    return vertices.float(), indices, points.float(), normals.float()


def cells(kind, image=None):
    """Return the rows of a preview, each [2, side, side, 3] with the views of both cameras."""
    image = torch.ones(3, 64, 64) if image is None else image
    sheet = mesh_picture(image, INTRINSICS, *shape(kind), SIDE)
    assert sheet.size == (48 + 2 * SIDE, 4 * SIDE)
    pixels = torch.tensor(np.asarray(sheet)[:, 48:]).float() / 255
    rows = pixels.view(4, SIDE, 2, SIDE, 3).movedim(2, 1)
    return dict(zip(("input", "mesh", "true", "normal"), rows, strict=True))


def covered(pixels):
    return (pixels < 0.99).any(dim=-1)


@pytest.mark.parametrize("kind", ["ball", "arms"])
def test_the_mesh_is_drawn_where_the_true_points_are(kind):
    rows = cells(kind)
    for view in range(2):
        mesh, true, normals = (covered(rows[name][view]) for name in ("mesh", "true", "normal"))
        assert (mesh & true).sum() > 0.85 * (mesh | true).sum()
        assert (normals == mesh).float().mean() > 0.99
        both = mesh & true & normals
        error = (rows["true"][view] - rows["normal"][view])[both].abs()
        assert error.median() < 0.05


def test_directions_are_not_mirrored():
    rows = cells("arms")
    row, column = covered(rows["mesh"][0]).nonzero().float().mean(dim=0)
    # One arm runs to the right and one upwards in the picture.
    assert column > SIDE / 2 + 3
    assert row < SIDE / 2 - 3
    # From the right-hand side the arm towards the camera is on the left.
    row, column = covered(rows["mesh"][1]).nonzero().float().mean(dim=0)
    assert column < SIDE / 2 - 1
    assert row < SIDE / 2 - 1


def test_normals_point_outwards_and_the_picture_is_behind_the_mesh():
    picture = torch.zeros(3, 64, 64)
    picture[2] = 1.0
    rows = cells("ball", picture)
    front, right = (rows["normal"][view][SIDE // 2 - 3, SIDE // 2 + 2] for view in range(2))
    # Normals towards each camera, +z and +x, are blue and red.
    assert front[2] > 0.95
    assert right[0] > 0.95
    assert torch.equal(rows["input"][0, 0, 0], torch.tensor([0.0, 0, 1]))
    assert torch.equal(rows["mesh"][0, 0, 0], torch.tensor([0.0, 0, 1]))
    assert torch.equal(rows["mesh"][1, 0, 0], torch.ones(3))
    assert rows["mesh"][0, SIDE // 2, SIDE // 2, 0] > 0.5


def test_a_mesh_and_points_around_the_camera_do_not_fail():
    vertices, faces, points, normals = shape("ball")
    moved = torch.tensor([0, 0, 0.75])
    sheet = mesh_picture(
        torch.ones(3, 8, 8), INTRINSICS, vertices + moved, faces, points + moved, normals, 32
    )
    assert sheet.size == (48 + 64, 128)
