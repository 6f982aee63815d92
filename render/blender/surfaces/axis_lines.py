"""Where lines along the three axes meet triangles."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from glb.geometry.surface import Surface

__all__ = ["AxisLines", "Crossings"]

_LINES = 48
"""Per side of each of the three grids of lines, at most."""
_MAX_TESTS = 4_000_000
"""Pairs of a line and a triangle that may be tested per axis: about 0.3 GB."""
_OFFSETS = (0.3819, 0.6543)
"""Of the lines in their cells. Lines through the middles would meet diagonals of squares."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Crossings:
    """Points in which lines meet triangles, sorted by line, and along each line."""

    lines: Int64[np.ndarray, "n"]
    faces: Int64[np.ndarray, "n"]
    along: Bool[np.ndarray, "n"]
    """Whether the triangle's front faces the end of the line rather than its beginning."""

    def select(self, mask: Bool[np.ndarray, "n"]) -> "Crossings":
        """Return the crossings in the mask."""
        return Crossings(lines=self.lines[mask], faces=self.faces[mask], along=self.along[mask])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Covered:
    """Triangles whose bounds contain lines of a grid."""

    faces: Int64[np.ndarray, "f"]
    first: Int64[np.ndarray, "f 2"]
    """Of the lines, by row and column."""
    counts: Int64[np.ndarray, "f 2"]
    """Of the rows and columns."""
    num: int
    """Lines per side of the grid."""


class AxisLines:
    """The bounds of a surface's faces, and lines along the axes through some of them."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface
        corners = [surface.positions[surface.faces[:, corner]].T for corner in range(3)]
        self._low = np.minimum(np.minimum(corners[0], corners[1]), corners[2])
        self._high = np.maximum(np.maximum(corners[0], corners[1]), corners[2])

    def bounds(
        self, faces: Int64[np.ndarray, "f"]
    ) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"]]:
        """Return the lowest and the highest coordinates of some faces."""
        return self._low[:, faces].min(axis=1), self._high[:, faces].max(axis=1)

    def contained(
        self, faces: Int64[np.ndarray, "f"], others: Int64[np.ndarray, "n"]
    ) -> Bool[np.ndarray, "n"]:
        """Return which of the others are wholly in the bounds of faces, 0.1 % larger."""
        inside = np.ones(len(others), dtype=bool)
        low, high = self.bounds(faces)
        margin = 1e-3 * (high - low).max()
        for axis in range(3):
            inside &= self._low[axis, others] > low[axis] - margin
            inside &= self._high[axis, others] < high[axis] + margin
        return inside

    def cross(self, faces: Int64[np.ndarray, "f"]) -> Crossings:
        """Return the crossings, with all faces, of three grids of lines over the bounds of some."""
        low, high = self.bounds(faces)
        size = np.where(high > low, high - low, 1)
        parts = []
        for axis in range(3):
            order = np.roll([0, 1, 2], -axis - 1)
            covered = self._covered(order[:2], low, size)
            corners = self._surface.positions[self._surface.faces[covered.faces]]
            lines, rows, depths, along = _cross(
                (corners[..., order] - low[order]) / size[order], covered
            )
            parts.append((lines + axis * _LINES**2, covered.faces[rows], depths, along))
        lines, crossed, depths, along = (
            np.concatenate(values) for values in zip(*parts, strict=True)
        )
        sorting = np.lexsort((depths, lines))
        return Crossings(lines=lines[sorting], faces=crossed[sorting], along=along[sorting])

    def _covered(self, sides: np.ndarray, low: np.ndarray, size: np.ndarray) -> _Covered:
        """Return the faces whose bounds contain lines of a grid over bounds."""
        num = _LINES
        while True:
            ranges = []
            for side, offset in zip(sides, _OFFSETS, strict=True):
                scale = num / size[side]
                first = np.ceil((self._low[side] - low[side]) * scale - offset)
                last = np.floor((self._high[side] - low[side]) * scale - offset)
                ranges.append((np.maximum(first, 0), np.minimum(last, num - 1)))
            counts = [np.maximum(last - first + 1, 0) for first, last in ranges]
            total = counts[0] * counts[1]
            if num == 1 or total.sum() <= _MAX_TESTS:
                break
            num //= 2
        faces = np.flatnonzero(total)
        return _Covered(
            faces=faces,
            first=np.stack([first[faces] for first, _ in ranges], axis=1).astype(np.int64),
            counts=np.stack([count[faces] for count in counts], axis=1).astype(np.int64),
            num=num,
        )


def _cross(
    corners: np.ndarray, covered: _Covered
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return lines, rows of triangles, depths and directions of crossings along the third axis.

    `corners` (f, 3, 3) are coordinates in which the lines are in [0, 1].
    """
    total = covered.counts.prod(axis=1)
    rows = np.repeat(np.arange(len(corners)), total)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(total) - total, total)
    across = covered.counts[rows, 1]
    columns = covered.first[rows] + np.stack([within // across, within % across], axis=1)
    x, y = ((columns + _OFFSETS) / covered.num).T
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (
        corners[:, number].T.copy()[:, rows] for number in range(3)
    )
    first_part = (bx - x) * (cy - y) - (by - y) * (cx - x)
    second_part = (cx - x) * (ay - y) - (cy - y) * (ax - x)
    third_part = (ax - x) * (by - y) - (ay - y) * (bx - x)
    whole = first_part + second_part + third_part
    lowest = np.minimum(np.minimum(first_part, second_part), third_part)
    highest = np.maximum(np.maximum(first_part, second_part), third_part)
    inside = ((lowest >= 0) | (highest <= 0)) & (whole != 0)
    depths = (first_part * az + second_part * bz + third_part * cz)[inside] / whole[inside]
    lines = columns[inside, 0] * _LINES + columns[inside, 1]
    return lines, rows[inside], depths, whole[inside] > 0
