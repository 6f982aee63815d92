"""Pinhole cameras: the camera convention of this project and conversions from and to it.

World: right-handed, z up. Camera: OpenGL axes (x right, y up, looking along -z).
docs/reference/conventions.md is the full page, with a drawing.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

__all__ = [
    "Camera",
    "camera_at",
    "intrinsics_from_fov",
    "look_at",
    "opencv_from_opengl",
    "orbit_eye",
    "project",
    "rays",
    "unproject",
    "world_to_camera",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """The pose and the projection of one view."""

    camera_to_world: Float[np.ndarray, "4 4"]
    """float32, OpenGL axes: the columns are right, up, backward and the position."""
    intrinsics: Float[np.ndarray, "4"]
    """float32: fx, fy, cx, cy; those of x over the image's width, those of y over its height."""


def look_at(
    eye: Float[np.ndarray, "3"],
    target: Float[np.ndarray, "3"] | None = None,
    up: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> Float[np.ndarray, "4 4"]:
    """Return camera_to_world of a camera at `eye` that looks at `target` (by default the origin).

    The roll is undefined if the camera looks along `up`; the image's right is then world +x made
    orthogonal to the viewing direction. Raises ValueError if `eye` equals the target.
    """
    eye = np.asarray(eye, dtype=np.float64)
    backward = eye - (np.zeros(3) if target is None else np.asarray(target, dtype=np.float64))
    distance = np.linalg.norm(backward)
    if distance == 0:
        raise ValueError("look_at: eye and target are the same point")
    backward /= distance
    right = np.cross(up, backward)
    if np.linalg.norm(right) < 1e-6:
        right = np.array([1.0, 0.0, 0.0]) - backward[0] * backward
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :4] = np.stack([right, np.cross(backward, right), backward, eye], axis=1)
    return matrix.astype(np.float32)


def orbit_eye(azimuth: float, elevation: float, distance: float) -> Float[np.ndarray, "3"]:
    """Return a point on a sphere around the origin.

    Angles are in degrees; azimuth 0 is +x, 90 is +y.
    """
    a, e = math.radians(azimuth), math.radians(elevation)
    direction = [math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)]
    return distance * np.array(direction)


def intrinsics_from_fov(degrees: float) -> Float[np.ndarray, "4"]:
    """Return normalised intrinsics of a square image with a field of view in degrees."""
    focal = 0.5 / math.tan(math.radians(degrees) / 2)
    return np.array([focal, focal, 0.5, 0.5], dtype=np.float32)


def camera_at(eye: Float[np.ndarray, "3"], fov: float) -> Camera:
    """Return a camera at `eye` that looks at the origin, with a field of view in degrees."""
    return Camera(camera_to_world=look_at(eye), intrinsics=intrinsics_from_fov(fov))


def world_to_camera(
    camera_to_world: Float[np.ndarray, "*b 4 4"],
) -> Float[np.ndarray, "*b 4 4"]:
    """Invert rigid camera_to_world matrices (rotation and translation only)."""
    rotation = np.swapaxes(camera_to_world[..., :3, :3], -1, -2)
    inverse = np.zeros_like(camera_to_world)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3:] = -rotation @ camera_to_world[..., :3, 3:]
    inverse[..., 3, 3] = 1
    return inverse


def opencv_from_opengl(
    camera_to_world: Float[np.ndarray, "*b 4 4"],
) -> Float[np.ndarray, "*b 4 4"]:
    """Convert OpenGL camera axes to OpenCV's (y down, looking along +z), or back."""
    return camera_to_world * np.array([1, -1, -1, 1], dtype=camera_to_world.dtype)


def project(
    camera: Camera, points: Float[np.ndarray, "*n 3"]
) -> tuple[Float[np.ndarray, "*n 2"], Float[np.ndarray, "*n"]]:
    """Project world points to image coordinates in [0, 1] (x right, y down) and planar depth.

    x = cx + fx X / depth, y = cy - fy Y / depth, depth = -Z, with X, Y, Z in camera axes.
    """
    matrix = world_to_camera(camera.camera_to_world)
    local = points @ matrix[:3, :3].T + matrix[:3, 3]
    depth = -local[..., 2]
    fx, fy, cx, cy = camera.intrinsics
    image = np.stack([cx + fx * local[..., 0] / depth, cy - fy * local[..., 1] / depth], axis=-1)
    return image, depth


def rays(
    camera: Camera, height: int, width: int
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "h w 3"]]:
    """Return the camera's position and a direction through the centre of each pixel.

    Directions are in world axes and have planar depth 1, not unit length: position + depth *
    direction is the point at that planar depth.
    """
    fx, fy, cx, cy = camera.intrinsics
    x = ((np.arange(width, dtype=np.float32) + 0.5) / width - cx) / fx
    y = -((np.arange(height, dtype=np.float32) + 0.5) / height - cy) / fy
    grid_x, grid_y = np.meshgrid(x, y)
    local = np.stack([grid_x, grid_y, -np.ones_like(grid_x)], axis=-1)
    return camera.camera_to_world[:3, 3], local @ camera.camera_to_world[:3, :3].T


def unproject(camera: Camera, depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    """Return the world point of each pixel at the given planar depth."""
    origin, directions = rays(camera, *depth.shape)
    return origin + depth[..., None] * directions
