"""Parts of a picture that are far darker than the light can make the surface's base colour.

A renderer draws a surface black where its rays meet themselves, its normals are wrong or a texture
is missing. The base colour, computed from the file alone, tells such a place from a black material.
"""

import numpy as np
from jaxtyping import Int64, UInt8

from dataset.views import ViewSet
from render.agreement import find_points
from render.frames import BaseColours, srgb_from_linear

__all__ = ["dark_share"]

_TOLERANCE = 2e-3
"""Distance in world units between a point and the surface in a view that still shows the point."""
_MIN_EXPECTED = 0.04
"""Linear value from which a colour is compared. Less is too close to black in 8 bits."""
_DARK = 0.03
"""A pixel is dark below this share of the least value that an unshaded surface has there."""
_CELLS = 24
"""Cells along a side of the image, in which dark points are counted against dark base colours."""
_EXCUSED = 2
"""Dark points that a point of a dark colour excuses. Of two equal surfaces in one place a cell has
about, but not exactly, as many points; one for one, the rest would add up to 3 %."""
_FEW_SAMPLES = 4
"""Samples per pixel below which noise leaves black pixels: 36 % of a rough metal with one."""
_MIN_POINTS = 200
"""Visible points, over all views, below which a share has no meaning."""


def dark_share(
    views: ViewSet,
    base: BaseColours,
    light_strength: float,
    light_gradient: float,
    samples: int = _FEW_SAMPLES,
) -> float:
    """Return the share of the visible surface that is black, although its base colour is not.

    The light is that of `RenderConfig`. A point is dark if its pixel has less than 3 % of the value
    that this light gives to an unshaded matt surface of its colour on the darkest side.

    A dark pixel may also show a dark surface beside the point, or one so close in front of it that
    the depths are the same. So in each cell of the image, every point of a dark colour excuses two
    dark ones. A cell with a point in front of what the view shows is left out: there the surface is
    seen through another one. With few samples per pixel, a pixel may be black by chance: then a
    point is dark only if all pixels around it are.
    """
    # A matt surface receives the mean of the radiance, weighted by the cosine: 2/3 of the gradient.
    least = max(light_strength - 2 / 3 * light_gradient, 0)
    expected = base.colours.max(axis=-1) * np.where(base.lit, least, 1)
    limits = np.rint(srgb_from_linear(_DARK * expected.clip(0, 1)) * 255)
    num_visible, num_dark = 0, 0
    for view, camera in enumerate(views.cameras):
        found = find_points(base.points, camera, views.depth[view])
        offset = found.depth * (found.ratio - 1)
        brightness = views.rgba[view, ..., :3].max(axis=-1)
        if samples < _FEW_SAMPLES:
            brightness = _brightest_around(brightness)
        shown = found.smooth & (np.abs(offset) < _TOLERANCE)
        # Nothing is smooth on thin parts, but rays through the centres of some pixels hit points.
        shown |= np.abs(views.depth[view, found.row, found.column] - found.depth) < _TOLERANCE
        in_front = found.smooth & ~shown & (offset < 0)
        shown &= views.rgba[view, found.row, found.column, 3] == 255
        bright = expected[found.numbers] >= _MIN_EXPECTED
        dark = shown & bright & (brightness[found.row, found.column] < limits[found.numbers])
        height, width = views.depth.shape[1:]
        cells = found.row * _CELLS // height * _CELLS + found.column * _CELLS // width
        excess = _counts(cells[dark]) - _EXCUSED * _counts(cells[shown & ~bright])
        num_visible += int(shown.sum())
        num_dark += int(excess.clip(0)[_counts(cells[in_front]) == 0].sum())
    return num_dark / num_visible if num_visible >= _MIN_POINTS else 0.0


def _brightest_around(image: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Return the largest value of each pixel and its eight neighbours."""
    padded = np.pad(image, 1)
    rows = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    return np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _counts(cells: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "c"]:
    """Return how often each cell occurs."""
    return np.bincount(cells, minlength=_CELLS**2)
