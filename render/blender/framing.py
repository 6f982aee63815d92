"""The part of each image that can show the open object; only this part is rendered."""

import math
from collections.abc import Sequence

import numpy as np

from glb.geometry.surface import Surface
from render.job import CameraSpec, Window

__all__ = ["object_windows"]

_CELLS = 128
"""Cells along the side of the normalised cube; the object is bounded by those with a vertex."""
_MARGIN = 2
"""Pixels around the window, for filters that are wider than a pixel."""


def object_windows(
    surface: Surface, cameras: Sequence[CameraSpec], resolution: int
) -> list[Window | None]:
    """Return the window of the object in each camera's image, None if the image does not show it.

    The image of a triangle lies within the bounds of its corners if all are in front of the camera.
    If a corner may be behind it, the window is the whole image.
    """
    centres = _touched_cells(surface)
    return [_window(camera, centres, resolution) for camera in cameras]


def _touched_cells(surface: Surface) -> np.ndarray:
    """Return the centres (n, 3) of the cells with a vertex: far fewer than vertices."""
    used = np.zeros(len(surface.positions), dtype=bool)
    used[surface.faces] = True
    cells = np.floor((surface.positions[used] + 1) * (_CELLS / 2)).astype(np.int64)
    # Vertices outside the cube are there by rounding only.
    cells = cells.clip(-1, _CELLS) + 1
    numbers = np.unique(cells @ np.array([(_CELLS + 2) ** 2, _CELLS + 2, 1]))
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
    # Upper bound on the projected radius of a cell's bounding sphere, off the image centre too.
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
