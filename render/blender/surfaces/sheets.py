"""Which way to wind triangles that are given both ways."""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from render.blender.surfaces.triangles import cross, relative_volumes
from render.blender.surfaces.welding import connected

__all__ = ["outward_choice"]

_MIN_VOLUME = 1e-3
"""Relative volume (`relative_volumes`) below which a surface is flat rather than closed."""
_SIDES = ((0, 1), (1, 2), (2, 0))
"""The second and third lead from a lower to a higher corner and back."""


def outward_choice(
    corners: Int64[np.ndarray, "n 3"],
    points: Float64[np.ndarray, "n 3 3"],
    first: Bool[np.ndarray, "n"],
    rank: Int64[np.ndarray, "n"],
) -> Bool[np.ndarray, "n"]:
    """Return whether to wind each triangle against the order of its corners.

    `corners` are numbers of positions, ascending, and `points` the positions.
    Triangles that are neighbours are wound alike, which divides them into sheets; each sheet
    consists of a surface and its reverse. The one with a positive volume is chosen. If there is no
    volume, it is the one of the triangle with the lowest `rank`, wound as `first` says;
    on a surface with one side only, such as a Möbius strip, each triangle stays as `first` says.
    """
    num = len(corners)
    even, odd = np.split(_sheets(corners), 2)
    vectors = cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    volumes = relative_volumes(
        np.tile(points.mean(axis=1), (2, 1)),
        np.concatenate([vectors, -vectors]),
        np.concatenate([even, odd]),
        2 * num,
    )
    earliest = np.full(2 * num, num)
    np.minimum.at(earliest, np.where(first, odd, even), rank)
    chosen = np.where(
        np.abs(volumes[even]) < _MIN_VOLUME, earliest[odd] < earliest[even], volumes[even] < 0
    )
    return np.where(even == odd, first, chosen)


def _sheets(corners: np.ndarray) -> np.ndarray:
    """Return the sheet (2 n,) of each triangle wound as its corners and, after those, reversed."""
    num = len(corners)
    ends = np.concatenate([np.sort(corners[:, side], axis=1) for side in _SIDES])
    triangles = np.tile(np.arange(num), 3)
    rising = np.repeat([True, True, False], num)
    order = np.lexsort(ends.T)
    ends, triangles, rising = ends[order], triangles[order], rising[order]
    starts = np.flatnonzero((np.diff(ends, axis=0, prepend=-1) != 0).any(axis=1))
    # A side of more than two triangles does not say which of them continue each other.
    pairs = starts[np.diff(starts, append=len(ends)) == 2]
    one, other = triangles[pairs], triangles[pairs + 1]
    # Neighbours that are wound alike pass their common side in opposite directions.
    other_even = other + num * (rising[pairs] == rising[pairs + 1])
    other_odd = other + num * (rising[pairs] != rising[pairs + 1])
    return connected(
        np.concatenate([one, one + num]), np.concatenate([other_even, other_odd]), 2 * num
    )
