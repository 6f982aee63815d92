"""Companion geometry: points, normals and mesh of bodies with closed forms, and of models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from dataset.cameras import Camera, intrinsics_from_fov, look_at, orbit_eye, project, unproject
from dataset.format.geometry import SurfaceGeometry
from dataset.views import ViewSet
from render.process import BlenderProcess, RenderFailure
from render.render_config import BlenderLimits, RenderConfig
from render.rigs import get_rig
from tests.support.analytic_shapes import edit_glb, letter_block, write_boxes, write_sphere
from tests.support.mirror_models import smallest_models

CAMERAS = [
    Camera(camera_to_world=look_at(orbit_eye(azimuth, 25, 2.6)), intrinsics=intrinsics_from_fov(50))
    for azimuth in (-70, 50, 170)
]
DEPTHS = RenderConfig(resolution=64, samples=1, denoise=False)


def mesh_of(surface: SurfaceGeometry) -> trimesh.Trimesh:
    """Return the mesh with vertices at equal positions merged."""
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    return mesh


def inside_any(points: np.ndarray, shrink: float = 0.0) -> np.ndarray:
    """Return whether each point lies in a box of the letter block.

    Every box is smaller by `shrink` on each side.
    """
    return np.any(
        [
            ((points > np.add(box.low, shrink)) & (points < np.subtract(box.high, shrink))).all(1)
            for box in letter_block()
        ],
        axis=0,
    )


def test_points_and_normals_of_a_sphere(blender: BlenderProcess, sphere: Path):
    blender.open(sphere, "sphere")
    surface = blender.geometry()
    assert surface.points.shape == surface.normals.shape == (100_000, 3)
    radii = np.linalg.norm(surface.points, axis=1)
    np.testing.assert_allclose(radii, 1, atol=1e-4)
    outward = (surface.points / radii[:, None] * surface.normals).sum(axis=1)
    assert np.degrees(np.arccos(outward.clip(-1, 1))).max() < 1


def test_the_mesh_of_a_sphere(blender: BlenderProcess, sphere: Path):
    report = blender.open(sphere, "sphere")
    surface = blender.geometry(num_points=10)
    assert len(surface.faces) == report.num_triangles
    assert len(surface.vertices) == len(surface.faces) / 2 + 2  # Euler: no vertex is stored twice
    mesh = mesh_of(surface)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi, rel=1e-3)
    assert mesh.area == pytest.approx(4 * np.pi, rel=1e-3)


def test_every_part_of_the_points_is_uniform(blender: BlenderProcess, sphere: Path):
    blender.open(sphere, "sphere")
    points = blender.geometry(num_points=50_000).points
    for part, tolerance in ((points, 0.05), (points[:5000], 0.2), (points[-5000:], 0.2)):
        # Archimedes: every coordinate of uniform points on a sphere is uniform in [-1, 1].
        for axis in range(3):
            counts, _ = np.histogram(part[:, axis], bins=10, range=(-1, 1))
            np.testing.assert_allclose(counts, len(part) / 10, rtol=tolerance)


def test_points_and_normals_of_the_letter_block(blender: BlenderProcess, block: Path):
    blender.open(block, "cube")
    surface = blender.geometry(num_points=20_000)
    points, normals = surface.points, surface.normals
    assert not inside_any(points, shrink=1e-4).any()
    assert inside_any(points, shrink=-1e-4).all()
    # Sides are flat and normals point outward: a step against the normal enters a box.
    np.testing.assert_allclose(np.abs(normals).max(axis=1), 1, atol=1e-6)
    points_behind = inside_any(points - 0.01 * normals)
    assert points_behind.all()
    # A step along the normal leaves it, except where a bar touches the block or another bar.
    touching = 2 * (0.183 + 0.05 * 0.24) / 7.885
    assert inside_any(points + 0.01 * normals).mean() == pytest.approx(touching, abs=0.004)


def test_the_letter_of_the_mesh_faces_minus_y(blender: BlenderProcess, block: Path):
    """The F: seen from -y, x to the right and z up, its stem is left and its long arm on top."""
    blender.open(block, "cube")
    surface = blender.geometry()
    front = surface.points[surface.points[:, 1] < -0.5 + 1e-4]
    np.testing.assert_allclose(front[:, 0].min(), -0.4, atol=5e-3)
    np.testing.assert_allclose(front[:, 0].max(), 0.3, atol=5e-3)
    stem = front[front[:, 0] < -0.25]
    top = front[(front[:, 0] > -0.25) & (front[:, 2] > 0.1)]
    assert len(stem) / len(front) == pytest.approx(0.075 / 0.183, abs=0.01)
    assert len(top) / len(front) == pytest.approx(0.066 / 0.183, abs=0.01)


def test_the_mesh_of_the_letter_block(blender: BlenderProcess, block: Path):
    report = blender.open(block, "cube")
    surface = blender.geometry(num_points=10)
    assert len(surface.faces) == report.num_triangles == 48
    sides = [np.subtract(box.high, box.low) for box in letter_block()]
    mesh = mesh_of(surface)
    assert mesh.volume == pytest.approx(sum(np.prod(side) for side in sides), rel=1e-5)
    areas = [2 * (x * y + y * z + z * x) for x, y, z in sides]
    assert mesh.area == pytest.approx(sum(areas), rel=1e-5)
    np.testing.assert_allclose(mesh.bounds, [[-1, -0.5, -0.3], [1, 0.5, 0.3]], atol=1e-5)


def test_a_mirrored_body_is_not_inside_out(blender: BlenderProcess, tmp_path: Path):
    path = write_boxes(tmp_path / "mirrored.glb", letter_block())

    def mirror_all(document: dict[str, Any]) -> None:
        roots = document["scenes"][0]["nodes"]
        document["nodes"].append({"scale": [-1, 1, 1], "children": roots})
        document["scenes"][0]["nodes"] = [len(document["nodes"]) - 1]

    blender.open(edit_glb(path, mirror_all), "cube")
    surface = blender.geometry(num_points=20_000)
    mesh = mesh_of(surface)
    assert mesh.volume == pytest.approx(
        sum(np.prod(np.subtract(box.high, box.low)) for box in letter_block()), rel=1e-5
    )
    unmirrored = np.array([-1, 1, 1], dtype=np.float32)
    points, normals = surface.points * unmirrored, surface.normals * unmirrored
    assert inside_any(points - 0.01 * normals).all()
    stem = surface.points[(surface.points[:, 1] < -0.5 + 1e-4) & (surface.points[:, 0] > 0.25)]
    assert stem[:, 2].min() < -0.2  # it is mirrored: the stem of the F is on the right


def test_every_instance_is_in_the_mesh(blender: BlenderProcess, tmp_path: Path):
    path = write_sphere(tmp_path / "spheres.glb", radius=1.0, subdivisions=5)

    def add_instances(document: dict[str, Any]) -> None:
        mesh = next(node["mesh"] for node in document["nodes"] if "mesh" in node)
        for node in (
            {"mesh": mesh, "translation": [4, 0, 0], "scale": [1, 1, -1]},
            {"mesh": mesh, "translation": [0, 3, 0], "scale": [0.5, 0.5, 0.5]},
        ):
            document["nodes"].append(node)
            document["scenes"][0]["nodes"].append(len(document["nodes"]) - 1)

    report = blender.open(edit_glb(path, add_instances), "cube")
    assert report.scale == pytest.approx(1 / 3, rel=1e-5)
    bodies = mesh_of(blender.geometry(num_points=10)).split()
    ball = 4 / 3 * np.pi / 27
    volumes_and_centres = [(body.volume / ball, *body.centroid.round(3)) for body in bodies]
    volumes_and_centres.sort(key=lambda body: (round(body[0], 2), *body[1:]))
    # Bounds: x from -1 to 5, z from -1 to 3.5; glTF's y axis is z here.
    expected = [
        (0.125, -0.667, 0, round((3 - 1.25) / 3, 3)),
        (1, -0.667, 0, round(-1.25 / 3, 3)),
        (1, 0.667, 0, round(-1.25 / 3, 3)),
    ]
    np.testing.assert_allclose(volumes_and_centres, expected, atol=2e-3)


def test_faces_without_area_are_left_out(blender: BlenderProcess, tmp_path: Path):
    box = trimesh.creation.box(extents=(2, 2, 2))
    vertices = np.concatenate([box.vertices, [[0, 0, 0], [1, 1, 0]]])
    line, point, unused = [0, 1, 9], [2, 2, 3], 8
    faces = np.concatenate([box.faces, [line, point]])
    vertices[9] = vertices[[0, 1]].mean(axis=0)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert unused not in mesh.faces
    path = tmp_path / "flat.glb"
    path.write_bytes(trimesh.Scene(mesh).export(file_type="glb"))
    blender.open(path, "cube")
    surface = blender.geometry(num_points=1000)
    assert len(surface.faces) == 12
    assert len(surface.vertices) == 8
    assert mesh_of(surface).volume == pytest.approx(8, rel=1e-5)


def test_geometry_needs_an_open_object():
    with BlenderProcess(BlenderLimits()) as process, pytest.raises(RenderFailure) as caught:
        process.geometry()
    assert caught.value.kind == "crash"


def test_the_same_object_gives_the_same_geometry(blender: BlenderProcess, block: Path):
    """Holds before and after a render, in the same child and in one with more threads."""
    blender.open(block, "cube")
    surfaces = [blender.geometry(num_points=1000)]
    views, _ = blender.render(CAMERAS[:1], DEPTHS)
    assert (views.depth > 0).any()
    surfaces.append(blender.geometry(num_points=1000))
    with BlenderProcess(BlenderLimits(threads=2)) as other:
        other.open(block, "cube")
        surfaces.append(other.geometry(num_points=1000))
        another_seed = other.geometry(num_points=1000, seed=1)
    for surface in surfaces[1:]:
        for name in ("points", "normals", "vertices", "faces"):
            np.testing.assert_array_equal(getattr(surface, name), getattr(surfaces[0], name))
    assert (another_seed.points != surfaces[0].points).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(another_seed.vertices, surfaces[0].vertices)


def test_pictures_of_the_block_agree_with_its_geometry(blender: BlenderProcess, block: Path):
    blender.open(block, "cube")
    views, _ = blender.render(CAMERAS, DEPTHS)
    _assert_agreement(blender.geometry(), views)


@pytest.mark.parametrize("kind", ["textured", "animated"])
@pytest.mark.parametrize("rig", ["lrm32", "zero123plus"])
def test_pictures_of_models_agree_with_their_geometry(
    blender: BlenderProcess, mirror: Path, kind: str, rig: str
):
    for path in smallest_models(mirror, kind, 2):
        blender.open(path, get_rig(rig).normalise)
        cameras = get_rig(rig).cameras(f"objaverse:{path.stem}")[:4]
        views, _ = blender.render(cameras, DEPTHS)
        _assert_agreement(blender.geometry(), views)


def _assert_agreement(surface: SurfaceGeometry, views: ViewSet) -> None:
    """Check that pixels show points of the surface and that no point lies in front of the depth."""
    tree = cKDTree(surface.points)
    size = views.depth.shape[1]
    for view, camera in enumerate(views.cameras):
        depth, hit = views.depth[view], views.depth[view] > 0
        distances, nearest = tree.query(unproject(camera, depth)[hit])
        assert np.quantile(distances, 0.99) < 0.02
        # Absolute values, because models may show the back of a surface. The median allows smooth
        # shading.
        cosines = np.abs((surface.normals[nearest] * views.normals[view][hit]).sum(axis=1))
        assert np.median(cosines) > 0.95
        image, own_depth = project(camera, surface.points)
        column, row = np.floor(image * size).astype(int).T
        inside = (column > 0) & (row > 0) & (column < size - 1) & (row < size - 1)
        neighbours = [(row[inside] + j, column[inside] + i) for j in (-1, 0, 1) for i in (-1, 0, 1)]
        nearest_depth = np.stack(
            [np.where(depth > 0, depth, np.inf)[pixel] for pixel in neighbours]
        )
        in_front = own_depth[inside] < nearest_depth.min(axis=0) - 0.02
        assert in_front[np.isfinite(nearest_depth).all(axis=0)].mean() < 0.01
