"""Looks at rendered views for what cannot be: nothing false is ever packed."""

import numpy as np

from dataset.cameras import Camera, project, unproject
from dataset.views import ViewSet
from render.process import RenderFailure

__all__ = ["check_views", "depth_agreement"]

_RADIUS = 3**0.5
"""Of the sphere around the cube in which every object lies."""
_SLACK = 1e-3
_BLACK = 2
"""In 8 bits. Even a black object reflects some of the light around it."""
_MOST_MISMATCH = 0.05
"""Share of the pixels at which alpha and depth may disagree about object or background."""
_MOST_WITHOUT_NORMAL = 0.01
_LEAST_AGREEMENT = 0.95
_AGREES_WITHIN = 0.01
"""Relative difference of depths that still agree, beyond what lies between two pixels."""
_EDGE = 0.04
"""Neighbouring pixels that differ by more (relative) lie on both sides of an edge."""


def check_views(views: ViewSet) -> None:
    """Raise RenderFailure (`bad_output`) if the views contradict themselves or their cameras."""
    problem = _problem(views)
    if problem is not None:
        raise RenderFailure("bad_output", problem)


def depth_agreement(views: ViewSet, first: int, second: int) -> tuple[float, int]:
    """How well the depth of one view, moved into another, agrees with the depth there.

    Returns the share of the pixels visible in both that agree within 1 %, and their number.
    A point behind what the second view sees is hidden there and does not count; one before it,
    which the second view looks through, is a contradiction.
    """
    depth = views.depth[first]
    points = unproject(views.cameras[first], depth)[depth > 0]
    image, expected = project(views.cameras[second], points)
    low, high = _look_up(views.depth[second], image)
    # Between pixels the surface may be anywhere between its depths at the four around.
    visible = (expected > 0) & (low > 0) & (expected < high * (1 + _AGREES_WITHIN))
    agrees = expected[visible] > low[visible] * (1 - _AGREES_WITHIN)
    return (float(agrees.mean()) if agrees.size else 1.0), agrees.size


def _problem(views: ViewSet) -> str | None:
    if not (np.isfinite(views.depth).all() and np.isfinite(views.normals).all()):
        return "depth or normals are no numbers"
    if not views.rgba[..., 3].any():
        return "all views are empty"
    if views.rgba[..., :3].max(where=views.rgba[..., 3:] > 127, initial=0) <= _BLACK:
        return "all views are black"
    for view, camera in enumerate(views.cameras):
        problem = _view_problem(views, view, camera)
        if problem is not None:
            return f"view {view}: {problem}"
    return _agreement_problem(views)


def _view_problem(views: ViewSet, view: int, camera: Camera) -> str | None:
    depth, normals, alpha = views.depth[view], views.normals[view], views.rgba[view, ..., 3]
    hit = depth > 0
    if hit.any():
        _, (origin,) = project(camera, np.zeros((1, 3), dtype=np.float32))
        # Planar depth of points in the sphere: that of its centre, give or take the radius.
        if depth[hit].max() > origin + _RADIUS + _SLACK:
            return f"depth {depth[hit].max():.3f} is behind the object"
        if depth[hit].min() < origin - _RADIUS - _SLACK:
            return f"depth {depth[hit].min():.3f} is before the object"
    length = np.linalg.norm(normals, axis=-1)[hit]
    # A triangle without area has no normal: a few such pixels are the object's own.
    if (np.abs(length - 1) > _SLACK).sum() > _MOST_WITHOUT_NORMAL * hit.sum():
        return "normals are not of unit length"
    mismatch = ((alpha > 250) & ~hit).mean() + ((alpha == 0) & hit).mean()
    if mismatch > _MOST_MISMATCH:
        return f"alpha and depth disagree at {mismatch:.1%} of the pixels"
    return None


def _agreement_problem(views: ViewSet) -> str | None:
    """Neighbouring views in the list must see the same surface, where they see it at all."""
    agreeing = total = 0.0
    for first in range(0, len(views.cameras) - 1, 4):
        share, count = depth_agreement(views, first, first + 1)
        agreeing, total = agreeing + share * count, total + count
    if total and agreeing / total < _LEAST_AGREEMENT:
        return f"depths of different views agree at only {agreeing / total:.1%} of the pixels"
    return None


def _look_up(depth: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest depth of the four pixels around image coordinates.

    Zero where they are not all on one surface: outside, at the background or across an edge.
    """
    height, width = depth.shape
    x, y = image[:, 0] * width - 0.5, image[:, 1] * height - 0.5
    inside = (x >= 0) & (y >= 0) & (x < width - 1) & (y < height - 1)
    left, top = np.where(inside, x, 0).astype(int), np.where(inside, y, 0).astype(int)
    corners = np.stack([depth[top + j, left + i] for j in (0, 1) for i in (0, 1)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    one_surface = inside & (low > 0) & (high < low * (1 + _EDGE))
    return np.where(one_surface, low, 0), np.where(one_surface, high, 0)
