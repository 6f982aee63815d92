"""One view of an object with points on its surface, in the scaled frame of the view's camera.

Pixel2Mesh trains on them. docs/reference/conventions.md defines the frame.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float32
from pydantic import Field

from core.config import Config, Fraction
from core.errors import WorkFailed
from core.storage import Storage, storage_errors
from dataset.cameras import Camera
from dataset.format.encoding import decode_rgba
from dataset.format.geometry import SurfacePoints, read_surface_points
from dataset.snapshots.snapshot import Sample
from dataset.views import view_member
from train.data.colours import Colours
from train.data.order import sample_rng
from train.data.sample_dataset import Item, SampleDataset
from train.data.step_views import count_views, parse_header, read_views

__all__ = [
    "CAMERA_DISTANCE",
    "SurfaceDataConfig",
    "SurfaceViewDataset",
    "camera_frame",
    "draw_points",
    "read_sample_points",
]

CAMERA_DISTANCE = 0.8
"""Distance of the camera from the world's origin in the scaled camera frame (Pixel2Mesh)."""
_TOLERANCE = 1e-3
"""Largest deviation of a camera's axes from an orthonormal frame; they have single precision."""


class SurfaceDataConfig(Config):
    """Points of an object in a step, and augmentation of its view."""

    num_points: Annotated[int, Field(gt=0, le=10**7)] = 9000
    """Number of surface points of an object in a step, drawn from its companion geometry; a smaller
    geometry repeats its points."""
    flip: Fraction = 0.5
    """Probability that a view and its points are mirrored from left to right."""


class SurfaceViewDataset(SampleDataset):
    """Dataset with one object per position: a random view of it, and points on its surface.

    The samples must have geometry (`Samples.with_geometry`). Items:

    - `images` [3, s, s]: RGB on white in [0, 1];
    - `intrinsics` [4] of the view;
    - `points`, `normals` [n, 3] in the scaled camera frame;
    - `scale` []: units of that frame per world unit.
    """

    def __init__(
        self,
        root: Storage,
        samples: Sequence[Sample],
        config: SurfaceDataConfig,
        *,
        image_size: int,
        seed: int,
    ) -> None:
        """Create the dataset; `image_size` is the side of the view in pixels."""
        super().__init__(root, samples, seed)
        self._config = config
        self._image_size = image_size

    def _load(self, sample: Sample, position: int) -> Item:
        rng, config = sample_rng(self._seed, position), self._config
        view = int(rng.integers(max(1, count_views(sample))))
        flipped = bool(rng.random() < config.flip)
        members = read_views(self._root, sample, [view], ["rgba"])
        _, cameras = parse_header(sample, members)
        camera = cameras[view]
        rotation, eye, scale = camera_frame(camera)
        surface = draw_points(read_sample_points(self._root, sample), config.num_points, rng)
        colours = Colours.of([decode_rgba(members[view_member(view, "rgba")])])
        item = {
            "images": colours.resized(self._image_size).floats()[0][0],
            "intrinsics": torch.from_numpy(camera.intrinsics),
            "points": torch.from_numpy(scale * (surface.points - eye) @ rotation),
            "normals": torch.from_numpy(surface.normals @ rotation),
            "scale": torch.tensor(scale),
        }
        return _mirrored(item) if flipped else item


def camera_frame(
    camera: Camera,
) -> tuple[Float32[np.ndarray, "3 3"], Float32[np.ndarray, "3"], np.float32]:
    """Return rotation, eye and scale of the frame in which the camera is 0.8 from the origin.

    Camera axes: p_frame = scale * (p_world - eye) @ rotation, where the columns of the rotation
    are right, up and backward. Raises ValueError if the camera is at the origin, or its pose or
    projection is invalid.
    """
    matrix, intrinsics = camera.camera_to_world, camera.intrinsics
    if not (np.isfinite(matrix).all() and np.isfinite(intrinsics).all()):
        raise ValueError("a camera is not finite")
    if intrinsics[:2].min() <= 0:
        raise ValueError("a camera has no focal length")
    rotation, eye = matrix[:3, :3], matrix[:3, 3]
    if not np.allclose(rotation.T @ rotation, np.eye(3), atol=_TOLERANCE):
        raise ValueError("the axes of a camera are not orthonormal")
    distance = np.linalg.norm(eye)
    if distance < _TOLERANCE:
        raise ValueError("a camera is at the origin")
    return rotation, eye, np.float32(CAMERA_DISTANCE / distance)


def read_sample_points(root: Storage, sample: Sample) -> SurfacePoints:
    """Return all surface points of a sample, in the world.

    Raises Damaged and FileNotFoundError, and WorkFailed naming the file if the storage fails.
    """
    if sample.geometry is None:
        raise WorkFailed(f"{sample.asset_id}: has no companion geometry")
    try:
        return read_surface_points(root, sample.geometry)
    except FileNotFoundError:
        raise
    except storage_errors() as error:
        raise WorkFailed(
            f"{sample.asset_id}: cannot read its geometry {sample.geometry}: {error}"
        ) from error


def draw_points(surface: SurfacePoints, num_points: int, rng: np.random.Generator) -> SurfacePoints:
    """Return a random slice of the points, which wraps around at their end.

    They are in random order, so any slice is an even sample of the surface.
    """
    start = rng.integers(len(surface.points))
    rows = (start + np.arange(num_points)) % len(surface.points)
    return SurfacePoints(points=surface.points[rows], normals=surface.normals[rows])


def _mirrored(item: Item) -> Item:
    """Return the item of the object that is mirrored from left to right in the camera frame."""
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    fx, fy, cx, cy = item["intrinsics"]
    return item | {
        "images": item["images"].flip(-1),
        "intrinsics": torch.stack([fx, fy, 1 - cx, cy]),
        "points": item["points"] * mirror,
        "normals": item["normals"] * mirror,
    }
