"""Which part of each picture the open object can touch: the rest is not worth a ray."""

import math
from collections.abc import Sequence

import numpy as np

from render.blender.scene import world_triangles
from render.job import CameraSpec, Window

__all__ = ["object_windows"]

_CELLS = 128
"""Cells along the normalised cube's side: the object is known by those that its vertices touch."""
_MARGIN = 2
"""Pixels around it, for filters that reach over the edge of a pixel."""


def object_windows(cameras: Sequence[CameraSpec], resolution: int) -> list[Window | None]:
    """The window of the object in each camera's picture, or None if it is not in the picture.

    A triangle is seen within the bounds of its three corners, as long as none is behind the camera;
    if one is, the window is the whole picture.
    """
    centres = _touched_cells()
    return [_window(camera, centres, resolution) for camera in cameras]


def _touched_cells() -> np.ndarray:
    """Centres (n, 3) of the cells that hold a vertex: far fewer than vertices."""
    found = []
    for triangles in world_triangles():
        cells = np.floor((triangles.reshape(-1, 3) + 1) * (_CELLS / 2)).astype(np.int64)
        # A vertex may lie outside the cube by rounding only.
        cells = cells.clip(-1, _CELLS) + 1
        found.append(np.unique(cells @ np.array([(_CELLS + 2) ** 2, _CELLS + 2, 1])))
    numbers = np.unique(np.concatenate(found))
    cells = np.stack(np.unravel_index(numbers, (_CELLS + 2,) * 3), axis=-1) - 1
    return (cells + 0.5) * (2 / _CELLS) - 1


def _window(camera: CameraSpec, centres: np.ndarray, resolution: int) -> Window | None:
    to_world = np.array(camera.camera_to_world)
    local = (centres - to_world[:3, 3]) @ to_world[:3, :3]
    depth = -local[:, 2]
    radius = math.sqrt(3) / _CELLS
    if depth.min() <= 2 * radius:
        return Window(left=0, top=0, width=resolution, height=resolution)
    fx, fy, cx, cy = camera.intrinsics
    x, y = local[:, 0] / depth, local[:, 1] / depth
    # How far the picture of a ball around the centre reaches, seen askew too.
    reach = radius / (depth - radius)
    reach_x, reach_y = fx * reach * (1 + np.abs(x)), fy * reach * (1 + np.abs(y))
    across, down = cx + fx * x, cy - fy * y
    low = np.array([(across - reach_x).min(), (down - reach_y).min()]) * resolution
    high = np.array([(across + reach_x).max(), (down + reach_y).max()]) * resolution
    left, top = np.maximum(np.floor(low).astype(int) - _MARGIN, 0)
    right, bottom = np.minimum(np.ceil(high).astype(int) + _MARGIN, resolution)
    if left >= right or top >= bottom:
        return None
    return Window(left=int(left), top=int(top), width=int(right - left), height=int(bottom - top))
