"""Other trainers' layouts, read back by their rules and not by ours."""

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
    assert_same_views,
    assert_trellis_sees_the_same,
    load_instantmesh,
)
from tests.support.spheres import sphere_views


@pytest.fixture(scope="module")
def views() -> ViewSet:
    return sphere_views(5, num_views=32, size=48)


def written(layout: str, views: ViewSet) -> dict[str, bytes]:
    LAYOUTS[layout].check(views, "cube")
    return dict(LAYOUTS[layout].files(views))


def test_instantmesh_reads_what_was_rendered(views):
    files = written("instantmesh", views)
    assert len(files) == 3 * 32 + 1
    assert_same_views(load_instantmesh(files), views)


def test_instantmesh_finds_the_sphere_with_its_own_lens(views):
    """50 degrees, its cameras, its depth and its normals agree on one surface."""
    loaded = load_instantmesh(written("instantmesh", views))
    side = views.depth.shape[1]
    x, y = np.meshgrid(*[(np.arange(side) + 0.5) / side * 2 - 1] * 2)
    slope = math.tan(math.radians(25))
    local = np.stack([x * slope, -y * slope, -np.ones_like(x)], axis=-1)
    for view, matrix in enumerate(loaded.camera_to_world):
        points = matrix[:3, 3] + loaded.depth[view][..., None] * (local @ matrix[:3, :3].T)
        hit = loaded.depth[view] > 0
        radius = np.linalg.norm(points[hit], axis=-1)
        # What rounding depth to 256 levels can do to a point.
        assert np.abs(radius - np.median(radius)).max() < 0.03
        outward = points[hit] / radius[:, None]
        assert (outward * loaded.normals[view][hit]).sum(-1).min() > math.cos(math.radians(3))


def test_the_nearest_surface_is_no_background(views):
    depth = views.depth.copy()
    depth[0, 0, 0] = 0.004
    loaded = load_instantmesh(written("instantmesh", replace(views, depth=depth)))
    assert loaded.depth[0, 0, 0] > 0


def with_camera(views: ViewSet, intrinsics: list[float] | np.ndarray) -> ViewSet:
    """The last view through another lens."""
    values = np.array(intrinsics, dtype=np.float32)
    last = Camera(camera_to_world=views.cameras[-1].camera_to_world, intrinsics=values)
    return replace(views, cameras=[*views.cameras[:-1], last])


def with_depth(views: ViewSet, value: float) -> ViewSet:
    depth = views.depth.copy()
    depth[3, 5, 5] = value
    return replace(views, depth=depth)


def without_views(views: ViewSet) -> ViewSet:
    few = slice(12)
    pictures = (views.rgba[few], views.depth[few], views.normals[few])
    names = ("rgba", "depth", "normals")
    return replace(views, cameras=views.cameras[few], **dict(zip(names, pictures, strict=True)))


def wide(views: ViewSet) -> ViewSet:
    half = slice(24)
    pictures = (views.rgba[:, half], views.depth[:, half], views.normals[:, half])
    return ViewSet(cameras=views.cameras, rgba=pictures[0], depth=pictures[1], normals=pictures[2])


FOCAL = 0.5 / math.tan(math.radians(25))
LENSES = [
    (lambda v: with_camera(v, [FOCAL, FOCAL, 0.45, 0.5]), "view 31 has its principal point"),
    (lambda v: with_camera(v, [FOCAL, 1.2, 0.5, 0.5]), "the layout requires equal values"),
    (wide, "48 x 24"),
]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *LENSES,
        (lambda v: with_camera(v, intrinsics_from_fov(30)), "field of view of 30.00 degrees"),
        (without_views, "12 views"),
        (lambda v: with_depth(v, 6.01), "view 3 shows a surface at depth 6.010"),
    ],
)
def test_instantmesh_refuses_what_it_cannot_say(views, change, reason):
    with pytest.raises(BadInput, match=reason):
        LAYOUTS["instantmesh"].check(change(views), "cube")


@pytest.mark.parametrize("normalise", ["sphere", None])
def test_instantmesh_refuses_what_is_not_in_the_cube(views, normalise):
    with pytest.raises(BadInput, match="the cube"):
        LAYOUTS["instantmesh"].check(views, normalise)


@pytest.mark.parametrize(("change", "reason"), LENSES)
def test_trellis_refuses_a_lens_that_is_not_one_angle(views, change, reason):
    with pytest.raises(BadInput, match=reason):
        LAYOUTS["trellis"].check(change(views), "cube")


def test_the_largest_depth_fits(views):
    loaded = load_instantmesh(written("instantmesh", with_depth(views, 6.0)))
    assert loaded.depth[3, 5, 5] == 6


@pytest.mark.parametrize("fov", [50, 30])
def test_trellis_sees_what_was_rendered(views, fov):
    views = with_camera(views, intrinsics_from_fov(fov))
    files = written("trellis", views)
    transforms = json.loads(files.pop("transforms.json"))
    assert_trellis_sees_the_same(transforms, views)
    assert set(files) == {frame["file_path"] for frame in transforms["frames"]}
    for frame, rgba in zip(transforms["frames"], views.rgba, strict=True):
        assert np.array_equal(Image.open(io.BytesIO(files[frame["file_path"]])), rgba)


def test_the_closest_layout_is_named():
    with pytest.raises(BadInput, match="did you mean 'trellis'"):
        get_layout("treliss")
    with pytest.raises(BadInput, match="there are: instantmesh, trellis"):
        get_layout("colmap")
