"""Other trainers' layouts, read back by their rules and not by ours."""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.spheres import sphere_views
from dataset.cameras import Camera, intrinsics_from_fov, project
from dataset.errors import BadInput
from dataset.views import ViewSet
from render.export import LAYOUTS, get_layout


@dataclass(frozen=True, eq=False)
class Loaded:
    """What InstantMesh's loader has in hand before it augments."""

    rgba: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    camera_to_world: np.ndarray


def load_instantmesh(files: Mapping[str, bytes], num_views: int = 32) -> Loaded:
    """Its arithmetic: everything over 255, depth times 6, normals over black by their own alpha."""

    def picture(name: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(files[name])))

    rgba, depths, normals = [], [], []
    for view in range(num_views):
        rgba.append(picture(f"{view:03d}.png"))
        depths.append(picture(f"{view:03d}_depth.png") / 255.0 * 6.0)
        normal = picture(f"{view:03d}_normal.png") / 255.0
        alpha = normal[:, :, 3:]
        normal = normal[:, :, :3] * alpha + np.zeros(3) * (1 - alpha)
        normal = normal * 2 - 1
        normals.append(normal / np.linalg.norm(normal, axis=-1, keepdims=True) * alpha)
    cam_poses = np.load(io.BytesIO(files["cameras.npz"]))["cam_poses"]
    assert cam_poses.dtype == np.float32
    rows = np.tile([[[0, 0, 0, 1]]], (len(cam_poses), 1, 1))
    inverted = np.linalg.inv(np.concatenate([cam_poses, rows], axis=1))
    return Loaded(np.stack(rgba), np.stack(depths), np.stack(normals), inverted)


def assert_same_views(loaded: Loaded, views: ViewSet) -> None:
    """Equal to the precision of the layout."""
    assert np.array_equal(loaded.rgba, views.rgba)
    assert loaded.depth.shape == views.depth.shape
    assert np.abs(loaded.depth - views.depth).max() <= 6 / 255 / 2 + 1e-6
    assert np.array_equal(loaded.depth > 0, views.depth > 0)
    hit = views.normals.any(axis=-1)
    assert np.array_equal(loaded.normals.any(axis=-1), hit)
    length = np.linalg.norm(views.normals[hit], axis=-1)
    cosines = (loaded.normals[hit] * views.normals[hit]).sum(-1) / length
    assert cosines.min() > math.cos(math.radians(0.4))
    native = np.stack([camera.camera_to_world for camera in views.cameras])
    assert np.allclose(loaded.camera_to_world, native, atol=2e-6)


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
    (lambda v: with_camera(v, [FOCAL, 1.2, 0.5, 0.5]), "the layout takes one"),
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


def assert_trellis_sees_the_same(transforms: Mapping, views: ViewSet) -> None:
    """Points go through its matrices as its feature extraction does it: OpenCV, one angle."""
    corners = np.array(np.meshgrid(*[[-1, 1]] * 3), dtype=np.float32).reshape(3, -1).T
    points = np.concatenate([corners, corners[:3] * 0.3])
    inside = points * transforms["scale"] + np.array(transforms["offset"])
    lower, upper = np.array(transforms["aabb"])
    assert ((inside >= lower) & (inside <= upper)).all()
    assert len(transforms["frames"]) == len(views.cameras)
    for frame, camera in zip(transforms["frames"], views.cameras, strict=True):
        matrix = np.array(frame["transform_matrix"])
        matrix[:3, 1:3] *= -1
        local = np.c_[inside, np.ones(len(inside))] @ np.linalg.inv(matrix).T
        focal = 0.5 / math.tan(frame["camera_angle_x"] / 2)
        image, depth = project(camera, points)
        assert np.allclose(local[:, :2] / local[:, 2:3] * focal + 0.5, image, atol=1e-5)
        assert np.allclose(local[:, 2], depth / 2, atol=1e-5)


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
