"""Renderings of bodies with closed forms, by cameras that no rig has.

test_rig_pictures.py uses the cameras of the rigs.
"""

from pathlib import Path

import numpy as np
import pytest

from dataset.cameras import Camera, intrinsics_from_fov, look_at, orbit_eye
from dataset.views import ViewSet
from render.check import check_views
from render.process import BlenderProcess, SceneReport
from render.render_config import RenderConfig
from tests.support.analytic_shapes import (
    cast_rays_at_boxes,
    letter_block,
    write_boxes,
    write_sphere,
)

SIZE = 128
CONFIG = RenderConfig(resolution=SIZE)


def camera(eye, fov=50.0, target=None, up=(0.0, 0.0, 1.0), centre=(0.5, 0.5)) -> Camera:
    intrinsics = intrinsics_from_fov(fov)
    intrinsics[2:] = centre
    return Camera(camera_to_world=look_at(np.array(eye), target, up), intrinsics=intrinsics)


CAMERAS = [
    camera((0, -2.6, 0)),
    camera((-2.2, 1.4, -0.7)),
    camera((0.3, -0.2, 3.0), up=(0.0, 1.0, 0.0)),
    camera((-0.7, -2.4, 0.8), target=np.array([0.3, 0.1, -0.2]), up=(0.3, 0.0, 1.0)),
    camera((0.9, -2.5, 0.5), centre=(0.62, 0.41)),
]
"""From the front and the back; from straight above; off the centre and rolled; a shifted principal
point."""


@pytest.fixture(scope="module")
def block_views(blender: BlenderProcess, block: Path) -> ViewSet:
    blender.open(block, "cube")
    return blender.render(CAMERAS, CONFIG)[0]


@pytest.fixture(scope="module")
def sphere_pictures(blender: BlenderProcess, sphere: Path) -> ViewSet:
    blender.open(sphere, "sphere")
    return blender.render(CAMERAS, CONFIG)[0]


def angles(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the angles between unit vectors, in degrees."""
    return np.degrees(np.arccos((actual * expected).sum(-1).clip(-1, 1)))


@pytest.mark.parametrize("view", range(len(CAMERAS)))
def test_depth_and_normals_of_the_block(block_views: ViewSet, view: int):
    expected = cast_rays_at_boxes(letter_block(), CAMERAS[view], SIZE)
    inner = expected.inner & (expected.face >= 0)
    assert inner.sum() > 500
    np.testing.assert_allclose(block_views.depth[view][inner], expected.depth[inner], atol=2e-3)
    assert angles(block_views.normals[view], expected.normals)[inner].max() < 1.5
    background = expected.inner & (expected.face < 0)
    assert not block_views.depth[view][background].any()
    assert not block_views.normals[view][background].any()


@pytest.mark.parametrize("view", range(len(CAMERAS)))
def test_depth_is_sampled_at_the_centre_of_the_pixel(block_views: ViewSet, view: int):
    expected = cast_rays_at_boxes(letter_block(), CAMERAS[view], SIZE)
    differ = (block_views.depth[view] > 0) != (expected.face >= 0)
    assert differ.mean() < 5e-4  # a ray exactly along an edge may go either way


@pytest.mark.parametrize("view", range(len(CAMERAS)))
def test_alpha_equals_the_covered_area_of_the_block(block_views: ViewSet, view: int):
    fine = cast_rays_at_boxes(letter_block(), CAMERAS[view], SIZE * 6)
    covered = (fine.face >= 0).reshape(SIZE, 6, SIZE, 6).mean(axis=(1, 3))
    alpha = block_views.rgba[view, ..., 3] / 255
    assert abs(alpha.mean() - covered.mean()) < 0.005
    inner = cast_rays_at_boxes(letter_block(), CAMERAS[view], SIZE)
    assert (alpha[(covered == 1) & inner.inner] > 0.99).all()
    assert (alpha[(covered == 0) & inner.inner] < 0.01).all()
    # At edges, alpha is the covered part of a pixel, within the accuracy of 8 samples.
    assert np.abs(alpha - covered).mean(where=(covered > 0) & (covered < 1)) < 0.15


@pytest.mark.parametrize("view", range(len(CAMERAS)))
def test_the_letter_is_at_its_computed_position(block_views: ViewSet, view: int):
    expected = cast_rays_at_boxes(letter_block(), CAMERAS[view], SIZE)
    rgb = block_views.rgba[view, ..., :3].astype(int)
    red = rgb[..., 0] - rgb[..., 1] > 60
    inner = expected.inner & (expected.face >= 0)
    np.testing.assert_array_equal(red[inner], expected.face[inner] >= 6)


def test_the_letter_reads_from_left_to_right(block_views: ViewSet):
    """Seen from -y, the stem of the F is left of its arms; checked without camera equations."""
    rgb = block_views.rgba[0, ..., :3].astype(int)
    red = rgb[..., 0] - rgb[..., 1] > 60
    rows, columns = np.nonzero(red)
    stem = np.bincount(columns, minlength=SIZE).argmax()
    top = np.bincount(rows, minlength=SIZE)[: int(rows.mean())].sum()
    assert stem < columns.mean()
    assert top > red.sum() / 2


@pytest.mark.parametrize("name", ["block_views", "sphere_pictures"])
def test_pictures_pass_the_check(name: str, request: pytest.FixtureRequest):
    check_views(request.getfixturevalue(name))


def test_light_reaches_every_side_and_saturates_none(sphere_pictures: ViewSet):
    opaque = sphere_pictures.rgba[sphere_pictures.rgba[..., 3] == 255][:, :3]
    assert opaque.min() > 100
    assert (opaque == 255).all(axis=-1).mean() < 0.01


def test_rendering_again_gives_the_same_picture(blender: BlenderProcess, block: Path):
    pictures = []
    for _ in range(2):
        blender.open(block, "cube")
        pictures.append(blender.render(CAMERAS[:2], CONFIG)[0])
    first, second = pictures
    np.testing.assert_allclose(first.depth, second.depth, atol=1e-5)
    difference = np.abs(first.rgba.astype(int) - second.rgba.astype(int))
    assert difference.mean() < 0.1


def test_one_import_serves_measuring_and_rendering(blender: BlenderProcess, block: Path):
    report = blender.open(block, "cube")
    assert isinstance(report, SceneReport)
    assert report.num_triangles == 12 * len(letter_block())
    measured = blender.measure(CAMERAS, num_points=20_000)
    views, rendering = blender.render(CAMERAS, CONFIG)
    rendered = views.rgba[..., 3].mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(measured.coverage, rendered, atol=0.01)
    assert all(seconds >= 0 for seconds in rendering.timings.values())


def test_points_spread_evenly_over_the_surface(blender: BlenderProcess, sphere: Path):
    blender.open(sphere, "sphere")
    points = blender.measure(CAMERAS[:1], num_points=50_000).points
    assert points.shape == (50_000, 3)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-3)
    # Archimedes: every coordinate of uniform points on a sphere is uniform in [-1, 1].
    for axis in range(3):
        counts, _ = np.histogram(points[:, axis], bins=10, range=(-1, 1))
        np.testing.assert_allclose(counts, 5000, rtol=0.05)
    np.testing.assert_array_equal(points, blender.measure(CAMERAS[:1], num_points=50_000).points)


@pytest.mark.parametrize("scale, shift", [(200.0, (900.0, -40.0, 7.0)), (1e-3, (0.2, 0.1, -0.3))])
def test_objects_of_any_size_and_position_are_normalised_to_the_cube(
    blender: BlenderProcess, tmp_path: Path, scale: float, shift: tuple[float, float, float]
):
    """Several roots are scaled together, so the letter stays on the block."""
    path = write_boxes(tmp_path / "moved.glb", letter_block(), scale=scale, shift=shift)
    report = blender.open(path, "cube")
    assert report.scale == pytest.approx(1 / scale, rel=1e-4)
    np.testing.assert_allclose(report.centre, shift, rtol=1e-4, atol=1e-6)
    views, _ = blender.render(CAMERAS[:2], RenderConfig(resolution=96, samples=1))
    for view in range(2):
        expected = cast_rays_at_boxes(letter_block(), CAMERAS[view], 96)
        inner = expected.inner & (expected.face >= 0)
        np.testing.assert_allclose(views.depth[view][inner], expected.depth[inner], atol=4e-3)


def test_objects_are_normalised_to_the_unit_sphere(blender: BlenderProcess, tmp_path: Path):
    path = write_boxes(tmp_path / "block.glb", letter_block(), scale=3.0)
    report = blender.open(path, "sphere")
    # The farthest points of the block are the four corners of the side behind the letter.
    assert report.scale == pytest.approx(1 / (3 * np.linalg.norm([1, 0.5, 0.3])), rel=1e-4)
    points = blender.measure(CAMERAS[:1], num_points=20_000).points
    assert 0.97 < np.linalg.norm(points, axis=1).max() <= 1 + 1e-4


def test_a_sphere_off_the_origin_is_centred(blender: BlenderProcess, tmp_path: Path):
    path = write_sphere(tmp_path / "sphere.glb", radius=5.0, centre=(10.0, -20.0, 30.0))
    report = blender.open(path, "cube")
    np.testing.assert_allclose(report.centre, (10, -20, 30), atol=1e-3)
    assert report.scale == pytest.approx(0.2, rel=1e-3)
    eye = orbit_eye(30, 20, 2.5)
    views, _ = blender.render([camera(eye)], RenderConfig(resolution=96, samples=1))
    assert views.depth[0, 48, 48] == pytest.approx(1.5, abs=2e-3)
