"""The benchmark fit_object: its data, its measures, and a few steps of both stages."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.proofs import fit_object
from benchmarks.proofs.fit_data import FitObject, export_objects, read_object
from benchmarks.proofs.fit_measures import (
    angles,
    mean_psnr,
    sample_mesh,
    seen_points,
    surface_distance,
)
from benchmarks.proofs.fit_object import main, measure_mesh
from core.errors import BadInput
from dataset.format.geometry import SurfaceGeometry, write_geometry
from dataset.snapshots.snapshot import open_snapshot, write_snapshot
from dataset.views import encode_views
from tests.support.sphere_datasets import sphere_views
from train.monitoring.depth_and_normals import depth_normals

CPU = torch.device("cpu")
OCTAHEDRON = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
FACES = np.array(
    [[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]]
)


def on_sphere(count):
    points = np.random.default_rng(0).normal(size=(count, 3))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def sphere():
    """Return views of a sphere and its true surface."""
    views = sphere_views(0, num_views=9, size=32)
    # The first random number of sphere_views is the radius.
    radius = 0.6 + 0.3 * np.random.default_rng(0).random()
    normals = on_sphere(20000)
    return FitObject(
        name="objaverse:sphere", views=views, points=normals * np.float32(radius), normals=normals
    )


def test_psnr_is_averaged_over_views():
    target = torch.zeros(2, 3, 4, 4)
    rendered = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert mean_psnr(rendered, target) == pytest.approx(30, abs=1e-3)
    assert mean_psnr(target - 5, target) == pytest.approx(100)  # rendered values are clamped


def test_points_of_a_mesh_are_uniform_with_outward_normals():
    points, normals = sample_mesh(OCTAHEDRON, FACES, 4000, seed=0)
    assert np.allclose(np.abs(points).sum(axis=1), 1)
    assert np.allclose(normals, np.sign(points) / np.sqrt(3))
    assert np.abs(points.mean(axis=0)).max() < 0.03
    with pytest.raises(ValueError, match="no area"):
        sample_mesh(OCTAHEDRON, FACES[:0], 10, seed=0)


def test_distances_and_angles_of_shifted_planes():
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0), [0.0]), axis=-1).reshape(-1, 3)
    up = np.tile([0, 0, 1.0], (25, 1))
    layers = np.concatenate([grid, grid + up])
    forward, backward = surface_distance(grid + 0.25 * up, layers)
    assert (forward, backward) == pytest.approx((0.25, 0.5))
    tilted = np.tile([0, 0.5, np.sqrt(0.75)], (25, 1))
    assert np.allclose(angles(grid, tilted, grid, up), 30)
    assert np.allclose(angles(grid, -up, grid, up), 180)


def test_points_inside_the_object_are_not_visible(sphere):
    sharp = sphere_views(0, num_views=9, size=128)
    assert seen_points(sphere.points, sharp.cameras, sharp.depth).mean() > 0.8
    assert not seen_points(sphere.points * 0.5, sharp.cameras, sharp.depth).any()


def test_smaller_pictures_do_not_mix_surfaces(sphere):
    full, small = sphere.at_size(32, CPU), sphere.at_size(16, CPU)
    blocks = full.depth.unflatten(3, (16, 2)).unflatten(2, (16, 2))
    depth_range = blocks.amax(dim=(3, 5)) - blocks.amin(dim=(3, 5))
    one_surface = (blocks.amin(dim=(3, 5)) > 0) & (depth_range < 0.1)
    assert torch.equal(small.depth > 0, one_surface)
    assert torch.allclose(small.depth[one_surface], blocks.mean(dim=(3, 5))[one_surface])
    assert torch.allclose(
        small.normals.norm(dim=1)[one_surface[:, 0]], torch.ones(int(one_surface.sum()))
    )
    with pytest.raises(BadInput, match="objaverse:sphere: size 24"):
        sphere.at_size(24, CPU)


def test_normals_computed_from_depth_equal_those_of_the_surface(sphere):
    views = sphere.at_size(32, CPU)
    normals = depth_normals(views.depth, views.camera_to_world, views.intrinsics)
    inner = torch.nn.functional.max_pool2d((views.depth == 0).float(), 5, 1, 2) == 0
    cosines = (normals * views.normals).sum(dim=1, keepdim=True)[inner]
    assert float(cosines.mean()) > 0.98


def test_the_distance_of_a_mesh_of_the_true_surface_is_small(sphere):
    radius = np.linalg.norm(sphere.points[0])
    corners, faces = OCTAHEDRON * radius, FACES
    for _ in range(4):  # split every edge and move the new corners onto the sphere
        a, b, c = corners[faces].transpose(1, 0, 2)
        ab, bc, ca = (
            m / np.linalg.norm(m, axis=1, keepdims=True) * radius for m in (a + b, b + c, c + a)
        )
        corners = np.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], axis=1).reshape(-1, 3)
        faces = np.arange(len(corners)).reshape(-1, 3)
    depth = sphere.views.depth
    measures = measure_mesh(corners, faces, depth, sphere)
    assert measures["chamfer"] < 0.02 and measures["normals median"] < 5
    inside_out = measure_mesh(corners, faces[:, ::-1], depth, sphere)
    # Add a smaller sphere inside, which no view shows.
    hidden = np.concatenate([corners, corners * 0.5])
    measures = measure_mesh(hidden, np.concatenate([faces, faces + len(corners)]), depth, sphere)
    assert measures["chamfer"] > 0.02 > measures["chamfer outer"] and measures["outer share"] < 0.85
    assert inside_out["normals median"] > 175 and inside_out["normals median unsigned"] < 5


def test_objects_are_exported_from_a_dataset_with_geometry(sphere_dataset, tmp_path):
    root, snapshot_id = sphere_dataset
    first = next(iter(open_snapshot(root, snapshot_id).samples))
    with pytest.raises(BadInput, match="--geometry"):
        export_objects(root.uri, snapshot_id, [first.asset_id], tmp_path)
    normals = on_sphere(100)
    surface = SurfaceGeometry(
        points=normals, normals=normals, vertices=OCTAHEDRON, faces=FACES.astype(np.int32)
    )
    write_geometry(root, "geometry/test.npz", surface)
    with_surface = vars(first) | {"geometry": "geometry/test.npz"}
    snapshot_with_geometry = write_snapshot(root, [type(first)(**with_surface)], None)["snapshot"]
    (path,) = export_objects(root.uri, snapshot_with_geometry, [], tmp_path)
    exported = read_object(path)
    expected = sphere_views(0)
    assert exported.name == first.asset_id
    assert np.array_equal(exported.views.rgba, expected.rgba)
    assert np.allclose(exported.points, normals) and np.allclose(
        exported.normals, normals, atol=1e-3
    )


def test_both_stages_run_and_are_measured(sphere, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_object, "_SURFACE_POINTS", 500)
    members = dict(encode_views(sphere.views, {}))
    arrays = {name: np.frombuffer(data, np.uint8) for name, data in members.items()}
    arrays["asset_id"] = np.array(sphere.name)
    path = tmp_path / "sphere.npz"
    np.savez(path, **arrays, surface_points=sphere.points, surface_normals=sphere.normals)
    sizes = "--size 16 --plane-channels 4 --plane-resolution 16 --samples-per-ray 8 --grid 10"
    lengths = "--steps-nerf 20 --rays 128 --steps-mesh 2 --views 1"
    main(f"--data {path} --device cpu --out {tmp_path} {sizes} {lengths}".split())
    (result,) = json.loads((tmp_path / "results.json").read_text())["objects"]
    assert result["psnr stage 1"] > 8
    assert {"chamfer", "start chamfer", "psnr stage 2"} <= set(result)
    assert Path(tmp_path / "objaverse-sphere.png").exists()
