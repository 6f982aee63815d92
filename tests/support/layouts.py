"""Readers of exported folders that follow the formulas of InstantMesh and TRELLIS."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dataset.cameras import project
from dataset.views import ViewSet


@dataclass(frozen=True, eq=False)
class ExportedViews:
    """The arrays that InstantMesh's loader has before augmentation."""

    rgba: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    camera_to_world: np.ndarray


def load_instantmesh(files: Mapping[str, bytes], num_views: int = 32) -> ExportedViews:
    """Read an object's files with InstantMesh's formulas.

    Pixels are divided by 255, depth is multiplied by 6, and normals are composited on black by
    their own alpha channel.
    """

    def read_image(name: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(files[name])))

    rgba, depths, normals = [], [], []
    for view in range(num_views):
        rgba.append(read_image(f"{view:03d}.png"))
        depths.append(read_image(f"{view:03d}_depth.png") / 255.0 * 6.0)
        normal = read_image(f"{view:03d}_normal.png") / 255.0
        alpha = normal[:, :, 3:]
        normal = normal[:, :, :3] * alpha + np.zeros(3) * (1 - alpha)
        normal = normal * 2 - 1
        normals.append(normal / np.linalg.norm(normal, axis=-1, keepdims=True) * alpha)
    cam_poses = np.load(io.BytesIO(files["cameras.npz"]))["cam_poses"]
    assert cam_poses.dtype == np.float32
    rows = np.tile([[[0, 0, 0, 1]]], (len(cam_poses), 1, 1))
    inverted = np.linalg.inv(np.concatenate([cam_poses, rows], axis=1))
    return ExportedViews(np.stack(rgba), np.stack(depths), np.stack(normals), inverted)


def assert_same_views(loaded: ExportedViews, views: ViewSet) -> None:
    """Assert that both are equal up to the precision of the layout."""
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


def assert_same_trellis_projection(transforms: Mapping, views: ViewSet) -> None:
    """Assert that points project to the same pixels with TRELLIS's matrices and with `views`.

    The projection is that of TRELLIS's feature extraction: OpenCV axes and one angle of view.
    """
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
