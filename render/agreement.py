"""How well the views of an object agree on one surface: depth with depth, and normals with depth.

Both are asked of patches: pixels around which the picture shows one smooth surface. There the depth
picture alone tells the plane of the surface, because the inverse depth of a plane is linear in the
image: 1 / depth = a X / depth + b Y / depth + c, with X and Y in camera axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int

from dataset.cameras import Camera, project
from dataset.views import ViewSet

__all__ = ["Patches", "depth_agreement", "find_patches", "pairs_to_compare"]

_AGREES_WITHIN = 0.01
"""Relative difference of depths that still agree."""
_BEND = (0.25, 0.1)
"""Most change of slope (depth per width; 1 is 45 degrees) in a patch: a share of it, and a rest."""
_STEEPEST = 4.0
"""Slope above which three pixels in line may as well be three things, one behind the other."""
_GRAZING = 0.25
"""Cosine between normal and line of sight below which a surface may fall between the pixels."""
_LEAST_ANGLE = 15.0
"""In degrees, between views to compare: from one direction, a wrong depth looks right."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Patches:
    """Pieces of smooth surface, each around the centre of one pixel of a view."""

    points: Float32[np.ndarray, "n 3"]
    """In world axes."""
    facing: Float32[np.ndarray, "n 3"]
    """Unit normals towards the camera that follow from depth alone, in world axes."""
    normals: Float32[np.ndarray, "n 3"]
    """The normals that the view states."""


def find_patches(views: ViewSet, view: int, stride: int = 1) -> Patches:
    """The patches around every `stride`-th pixel of a view, both ways."""
    camera, depth = views.cameras[view], views.depth[view]
    height, width = depth.shape
    row, column = np.nonzero(depth[1:-1:stride, 1:-1:stride])
    row, column = 1 + stride * row, 1 + stride * column
    planes = _planes(camera, depth, row, column)
    found = planes.smooth
    row, column, inverse = row[found], column[found], planes.inverse[found]
    fx, fy, cx, cy = camera.intrinsics
    x, y = ((column + 0.5) / width - cx) / fx, -((row + 0.5) / height - cy) / fy
    a, b = planes.step_x[found] * width * fx, -planes.step_y[found] * height * fy
    # Of the plane a X + b Y - c Z = 1, the camera is on the side where the left is less than 1.
    facing = np.stack([-a, -b, inverse - a * x - b * y], axis=-1)
    facing /= np.linalg.norm(facing, axis=-1, keepdims=True)
    points = np.stack([x, y, -np.ones_like(x)], axis=-1) / inverse[:, None]
    to_world = camera.camera_to_world[:3, :3].T
    return Patches(
        points=(points @ to_world + camera.camera_to_world[:3, 3]).astype(np.float32),
        facing=(facing @ to_world).astype(np.float32),
        normals=views.normals[view][row, column],
    )


def depth_agreement(
    patches: Patches, camera: Camera, depth: Float32[np.ndarray, "h w"]
) -> tuple[float, int]:
    """How well patches of one view agree with the depth of another, given with its camera.

    Returns the share of the patches visible there whose depth is the same within 1 %, and their
    number. A patch behind what the other view shows is hidden there and does not count; one before
    it, or where there is only background, is a contradiction.
    """
    height, width = depth.shape
    image, expected = project(camera, patches.points)
    sight = camera.camera_to_world[:3, 3] - patches.points
    cosine = (sight * patches.facing).sum(axis=-1) / np.linalg.norm(sight, axis=-1)
    column, row = np.floor(image * (width, height)).astype(int).T
    judged = (expected > 0) & (np.abs(cosine) > _GRAZING)
    judged &= (column > 0) & (row > 0) & (column < width - 1) & (row < height - 1)
    image, expected, row, column = image[judged], expected[judged], row[judged], column[judged]
    planes = _planes(camera, depth, row, column)
    right, down = image[:, 0] * width - column - 0.5, image[:, 1] * height - row - 0.5
    ratio = expected * (planes.inverse + planes.step_x * right + planes.step_y * down)
    empty = ~np.any([depth[row + j, column + i] for j in (-1, 0, 1) for i in (-1, 0, 1)], axis=0)
    visible = empty | (planes.smooth & (ratio < 1 + _AGREES_WITHIN))
    agrees = planes.smooth & (np.abs(ratio - 1) < _AGREES_WITHIN)
    count = int(visible.sum())
    return (float(agrees.sum() / count) if count else 1.0), count


def pairs_to_compare(cameras: Sequence[Camera]) -> list[tuple[int, int]]:
    """Pairs of views, both ways, in which every view meets the one that sees most of its side.

    Views less than 15 degrees apart are no pair.
    """
    backward = np.stack([camera.camera_to_world[:3, 2] for camera in cameras])
    cosines = backward @ backward.T
    cosines[cosines > np.cos(np.radians(_LEAST_ANGLE))] = -np.inf
    closest = [(view, int(row.argmax())) for view, row in enumerate(cosines) if row.max() > -np.inf]
    return sorted({*closest, *((second, first) for first, second in closest)})


@dataclass(frozen=True, kw_only=True, eq=False)
class _Planes:
    """The planes around pixels, as inverse depth and its change from pixel to pixel."""

    smooth: Bool[np.ndarray, "n"]
    inverse: Float32[np.ndarray, "n"]
    step_x: Float32[np.ndarray, "n"]
    step_y: Float32[np.ndarray, "n"]


def _planes(
    camera: Camera,
    depth: Float32[np.ndarray, "h w"],
    row: Int[np.ndarray, "n"],
    column: Int[np.ndarray, "n"],
) -> _Planes:
    """The planes around pixels, none of them at the border. Background is infinitely far away."""
    crossing = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))
    around = np.stack([depth[row + j, column + i] for j, i in crossing])
    here, left, right, above, below = np.divide(
        1, around, out=np.zeros_like(around), where=around > 0
    )
    step_x, step_y = (right - left) / 2, (below - above) / 2
    bend_x, bend_y = np.abs(right + left - 2 * here), np.abs(below + above - 2 * here)
    one = here / (camera.intrinsics[0] * depth.shape[1])  # what a slope of 1 changes in a pixel
    share, rest = _BEND
    smooth = np.hypot(step_x, step_y) < _STEEPEST * one
    smooth &= bend_x < share * np.abs(step_x) + rest * one
    smooth &= bend_y < share * np.abs(step_y) + rest * one
    return _Planes(smooth=smooth, inverse=here, step_x=step_x, step_y=step_y)
