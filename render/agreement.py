"""Agreement of an object's views on one surface: depth with depth, and normals with depth.

Both are measured on patches: pixels around which the image shows one smooth surface. There the
plane of the surface follows from the depth image alone, because the inverse depth of a plane is
linear in the image: 1 / depth = a X / depth + b Y / depth + c, with X and Y in camera axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64

from dataset.cameras import Camera, project
from dataset.views import ViewSet

__all__ = [
    "Patches",
    "PointsInView",
    "depth_agreement",
    "find_patches",
    "find_points",
    "pairs_to_compare",
]

_DEPTH_TOLERANCE = 0.01
"""Maximum relative difference of depths that agree."""
_MAX_BEND = (0.25, 0.1)
"""Maximum change of slope within a patch: a share of the slope, plus a constant. Slopes are depth
per width; 1 is 45 degrees."""
_MAX_SLOPE = 4.0
"""Slope above which three neighbouring pixels may show three surfaces, one behind the other."""
_MIN_COSINE = 0.25
"""Cosine between normal and line of sight below which a surface may fall between the pixels."""
_MIN_ANGLE = 15.0
"""In degrees, between views to compare: from the same direction a wrong depth looks right."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Patches:
    """Pieces of smooth surface, each around the centre of one pixel of a view."""

    points: Float32[np.ndarray, "n 3"]
    """Centres, in world axes."""
    facing: Float32[np.ndarray, "n 3"]
    """Unit normals computed from depth alone, towards the camera, in world axes."""
    normals: Float32[np.ndarray, "n 3"]
    """The normals that the view stores, in world axes."""


def find_patches(views: ViewSet, view: int, stride: int = 1) -> Patches:
    """Return the patches around every `stride`-th pixel of a view in rows and columns."""
    camera, depth = views.cameras[view], views.depth[view]
    height, width = depth.shape
    row, column = np.nonzero(depth[1:-1:stride, 1:-1:stride])
    row, column = 1 + stride * row, 1 + stride * column
    planes = _planes(camera, depth, row, column)
    smooth = planes.smooth
    row, column, inverse = row[smooth], column[smooth], planes.inverse[smooth]
    fx, fy, cx, cy = camera.intrinsics
    x, y = ((column + 0.5) / width - cx) / fx, -((row + 0.5) / height - cy) / fy
    a, b = planes.step_x[smooth] * width * fx, -planes.step_y[smooth] * height * fy
    # The camera is on the side of the plane a X + b Y - c Z = 1 where the left side is below 1.
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
    """Return how well patches of one view agree with the depth of another view and its camera.

    Returns the share of the patches visible in the other view whose depth there is the same within
    1 %, and the number of visible patches. A patch behind the surface of the other view is hidden
    and not counted; one in front of it, or over background, counts as a disagreement.
    """
    sight = camera.camera_to_world[:3, 3] - patches.points
    cosine = (sight * patches.facing).sum(axis=-1) / np.linalg.norm(sight, axis=-1)
    found = find_points(patches.points[np.abs(cosine) > _MIN_COSINE], camera, depth)
    row, column = found.row, found.column
    empty = ~np.any([depth[row + j, column + i] for j in (-1, 0, 1) for i in (-1, 0, 1)], axis=0)
    visible = empty | (found.smooth & (found.ratio < 1 + _DEPTH_TOLERANCE))
    agrees = found.smooth & (np.abs(found.ratio - 1) < _DEPTH_TOLERANCE)
    count = int(visible.sum())
    return (float(agrees.sum() / count) if count else 1.0), count


@dataclass(frozen=True, kw_only=True, eq=False)
class PointsInView:
    """Points within the image of a view, and the surface that the view shows at each of them."""

    numbers: Int64[np.ndarray, "m"]
    """Which of the given points they are."""
    row: Int64[np.ndarray, "m"]
    column: Int64[np.ndarray, "m"]
    smooth: Bool[np.ndarray, "m"]
    """Whether the view shows one smooth surface around the point; else `ratio` has no meaning."""
    depth: Float32[np.ndarray, "m"]
    """Planar depth of the point."""
    ratio: Float32[np.ndarray, "m"]
    """This depth divided by the one of the surface: above 1 the point is hidden."""


def find_points(
    points: Float32[np.ndarray, "n 3"], camera: Camera, depth: Float32[np.ndarray, "h w"]
) -> PointsInView:
    """Return the points that project into the image of a view, except for its outermost pixels."""
    height, width = depth.shape
    image, distance = project(camera, points)
    column, row = np.floor(image * (width, height)).astype(np.int64).T
    inside = (distance > 0) & (column > 0) & (row > 0)
    numbers = np.flatnonzero(inside & (column < width - 1) & (row < height - 1))
    image, distance, row, column = image[numbers], distance[numbers], row[numbers], column[numbers]
    planes = _planes(camera, depth, row, column)
    right, down = image[:, 0] * width - column - 0.5, image[:, 1] * height - row - 0.5
    ratio = distance * (planes.inverse + planes.step_x * right + planes.step_y * down)
    return PointsInView(
        numbers=numbers,
        row=row,
        column=column,
        smooth=planes.smooth,
        depth=distance.astype(np.float32),
        ratio=ratio.astype(np.float32),
    )


def pairs_to_compare(cameras: Sequence[Camera]) -> list[tuple[int, int]]:
    """Return ordered pairs of views that show the same side of the object, in both orders.

    Every view is paired with the one whose direction is closest, of those that are at least 15
    degrees apart.
    """
    backward = np.stack([camera.camera_to_world[:3, 2] for camera in cameras])
    cosines = backward @ backward.T
    cosines[cosines > np.cos(np.radians(_MIN_ANGLE))] = -np.inf
    closest = [(view, int(row.argmax())) for view, row in enumerate(cosines) if row.max() > -np.inf]
    return sorted({*closest, *((second, first) for first, second in closest)})


@dataclass(frozen=True, kw_only=True, eq=False)
class _Planes:
    """The planes around pixels, as inverse depth and its change from one pixel to the next."""

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
    """Return the planes around pixels, none at the image border; background is infinitely far."""
    crossing = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))
    around = np.stack([depth[row + j, column + i] for j, i in crossing])
    centre, left, right, above, below = np.divide(
        1, around, out=np.zeros_like(around), where=around > 0
    )
    step_x, step_y = (right - left) / 2, (below - above) / 2
    bend_x, bend_y = np.abs(right + left - 2 * centre), np.abs(below + above - 2 * centre)
    # The change of inverse depth per pixel at a slope of 1.
    unit = centre / (camera.intrinsics[0] * depth.shape[1])
    share, constant = _MAX_BEND
    smooth = np.hypot(step_x, step_y) < _MAX_SLOPE * unit
    smooth &= bend_x < share * np.abs(step_x) + constant * unit
    smooth &= bend_y < share * np.abs(step_y) + constant * unit
    return _Planes(smooth=smooth, inverse=centre, step_x=step_x, step_y=step_y)
