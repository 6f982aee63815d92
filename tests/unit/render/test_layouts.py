"""Folder layouts of other trainers, read back by the rules of those trainers."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from core.errors import BadInput
from dataset.cameras import Camera, intrinsics_from_fov
from dataset.views import ViewSet
from render.layouts import LAYOUTS, get_layout
from tests.support.layouts import (
    assert_same_trellis_projection,
    assert_same_views,
    load_instantmesh,
)
from tests.support.sphere_datasets import sphere_views


@pytest.fixture(scope="module")
def views() -> ViewSet:
    return sphere_views(5, num_views=32, size=48)


def files_of(layout: str, views: ViewSet) -> dict[str, bytes]:
    LAYOUTS[layout].check(views, "cube")
    return dict(LAYOUTS[layout].files(views))


def test_instantmesh_reads_the_rendered_views(views):
    files = files_of("instantmesh", views)
    assert len(files) == 3 * 32 + 1
    assert_same_views(load_instantmesh(files), views)


def test_what_instantmesh_reads_describes_one_sphere(views):
    """Its field of view of 50 degrees, cameras, depth and normals agree on one surface."""
    loaded = load_instantmesh(files_of("instantmesh", views))
    side = views.depth.shape[1]
    x, y = np.meshgrid(*[(np.arange(side) + 0.5) / side * 2 - 1] * 2)
    slope = math.tan(math.radians(25))
    local = np.stack([x * slope, -y * slope, -np.ones_like(x)], axis=-1)
    for view, matrix in enumerate(loaded.camera_to_world):
        points = matrix[:3, 3] + loaded.depth[view][..., None] * (local @ matrix[:3, :3].T)
        hit = loaded.depth[view] > 0
        radius = np.linalg.norm(points[hit], axis=-1)
        # Depth has 256 levels: this bounds the error of a point.
        assert np.abs(radius - np.median(radius)).max() < 0.03
        outward = points[hit] / radius[:, None]
        assert (outward * loaded.normals[view][hit]).sum(-1).min() > math.cos(math.radians(3))


def test_the_nearest_surface_is_not_background(views):
    depth = views.depth.copy()
    depth[0, 0, 0] = 0.004
    loaded = load_instantmesh(files_of("instantmesh", replace(views, depth=depth)))
    assert loaded.depth[0, 0, 0] > 0


def with_camera(views: ViewSet, intrinsics: list[float] | np.ndarray) -> ViewSet:
    """Return the views with other intrinsics of the last camera."""
    values = np.array(intrinsics, dtype=np.float32)
    last = Camera(camera_to_world=views.cameras[-1].camera_to_world, intrinsics=values)
    return replace(views, cameras=[*views.cameras[:-1], last])


def with_depth(views: ViewSet, value: float) -> ViewSet:
    depth = views.depth.copy()
    depth[3, 5, 5] = value
    return replace(views, depth=depth)


def first_twelve_views(views: ViewSet) -> ViewSet:
    first = slice(12)
    pictures = (views.rgba[first], views.depth[first], views.normals[first])
    names = ("rgba", "depth", "normals")
    return replace(views, cameras=views.cameras[first], **dict(zip(names, pictures, strict=True)))


def wide_images(views: ViewSet) -> ViewSet:
    half = slice(24)
    pictures = (views.rgba[:, half], views.depth[:, half], views.normals[:, half])
    return ViewSet(cameras=views.cameras, rgba=pictures[0], depth=pictures[1], normals=pictures[2])


FOCAL = 0.5 / math.tan(math.radians(25))
LENSES = [
    (lambda v: with_camera(v, [FOCAL, FOCAL, 0.45, 0.5]), "view 31 has its principal point"),
    (lambda v: with_camera(v, [FOCAL, 1.2, 0.5, 0.5]), "the layout requires equal values"),
    (wide_images, "48 x 24"),
]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *LENSES,
        (lambda v: with_camera(v, intrinsics_from_fov(30)), "field of view of 30.00 degrees"),
        (first_twelve_views, "12 views"),
        (lambda v: with_depth(v, 6.01), "view 3 shows a surface at depth 6.010"),
    ],
)
def test_instantmesh_rejects_views_that_it_cannot_represent(views, change, reason):
    with pytest.raises(BadInput, match=reason):
        LAYOUTS["instantmesh"].check(change(views), "cube")


@pytest.mark.parametrize("normalise", ["sphere", None])
def test_instantmesh_rejects_objects_that_are_not_normalised_to_the_cube(views, normalise):
    with pytest.raises(BadInput, match="the cube"):
        LAYOUTS["instantmesh"].check(views, normalise)


@pytest.mark.parametrize(("change", "reason"), LENSES)
def test_trellis_rejects_intrinsics_that_are_not_one_angle(views, change, reason):
    with pytest.raises(BadInput, match=reason):
        LAYOUTS["trellis"].check(change(views), "cube")


def test_the_largest_depth_fits(views):
    loaded = load_instantmesh(files_of("instantmesh", with_depth(views, 6.0)))
    assert loaded.depth[3, 5, 5] == 6


@pytest.mark.parametrize("fov", [50, 30])
def test_trellis_reads_the_rendered_views(views, fov):
    views = with_camera(views, intrinsics_from_fov(fov))
    files = files_of("trellis", views)
    transforms = json.loads(files.pop("transforms.json"))
    assert_same_trellis_projection(transforms, views)
    assert set(files) == {frame["file_path"] for frame in transforms["frames"]}
    for frame, rgba in zip(transforms["frames"], views.rgba, strict=True):
        assert np.array_equal(Image.open(io.BytesIO(files[frame["file_path"]])), rgba)


def test_an_unknown_layout_is_an_error_that_suggests_the_closest():
    with pytest.raises(BadInput, match="did you mean 'trellis'"):
        get_layout("treliss")
    with pytest.raises(BadInput, match="there are: instantmesh, trellis"):
        get_layout("colmap")
