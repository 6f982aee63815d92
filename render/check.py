"""The check of rendered views, before they are packed.

Depth, normals and cameras must agree, and the colours must not be black without a reason.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from core.failures import FailureKind
from dataset.cameras import Camera, project
from dataset.views import OBJECT_RADIUS, ViewSet
from render.agreement import Patches, depth_agreement, find_patches, pairs_to_compare
from render.darkness import dark_share
from render.process import RenderFailure, RenderReport
from render.render_config import RenderConfig

__all__ = ["check_render", "check_views"]

_TOLERANCE = 1e-3
"""In world units for depth, and of the length of normals."""
_MAX_DARK = 0.04
"""Share of the visible surface that may be black. Of 68 real models one has 0.2 %, by shade, and
the others less than 0.05 %; the least of the faulty ones has 14 %."""
_MAX_MISMATCH = 0.05
"""Share of the pixels at which alpha and depth may disagree about object or background."""
_MAX_WITHOUT_NORMAL = 0.01
"""Share of the object's pixels that may have no unit normal."""
_MIN_PIXELS = 100
"""Pixels that can be compared on a pair of views, a view or a side before an object can fail."""
_MIN_TOTAL_PIXELS = 1000
_SAMPLES = 128
"""Surfaces are compared at this many pixels per row and column, whatever the resolution."""

# Measured on 71 real models (`lrm32`, 96 to 512 pixels). Valid renders: depths agree at 99.99 % of
# the pixels or more, if 1,000 can be compared; normals are within 60 degrees of those computed from
# depth at 89 % or more of every view and side. Invalid renders: depth that is 3 % too large agrees
# at 97 % or less from 256 pixels on; normals in camera axes, with y up, inverted or with two axes
# swapped are aligned at 34 % or less of some side, except on surfaces where they hardly change.
_MIN_AGREEMENT = 0.99
_MIN_PAIR_AGREEMENT = 0.9
_MIN_ALIGNED = 0.4
_ALIGNED_COSINE = 0.5
"""Cosine of 60 degrees: shading normals are interpolated, and bent by normal maps."""
_MIN_SIDE_SHARE = 0.01
"""Share of the pixels that must face one way (+x, -x, +y ...) to be checked as a side."""


def check_render(views: ViewSet, report: RenderReport, config: RenderConfig) -> float:
    """Return the share of the visible surface that is black without a reason (`dark_share`).

    Raises RenderFailure (`bad_output`) if it is too large, or as `check_views` does.
    """
    check_views(views)
    light = config.light_strength, config.light_gradient
    dark = dark_share(views, report.base_colours, *light, report.samples)
    if dark > _MAX_DARK:
        problem = f"{dark:.1%} of the visible surface is black, although its base colour is not"
        raise RenderFailure(FailureKind.BAD_OUTPUT, problem)
    return dark


def check_views(views: ViewSet) -> None:
    """Raise RenderFailure (`bad_output`) if the views contradict each other or their cameras."""
    problem = _problem(views)
    if problem is not None:
        raise RenderFailure(FailureKind.BAD_OUTPUT, problem)


def _problem(views: ViewSet) -> str | None:
    if not (np.isfinite(views.depth).all() and np.isfinite(views.normals).all()):
        return "depth or normals contain non-finite values"
    if not views.rgba[..., 3].any():
        return "all views are empty"
    for view, camera in enumerate(views.cameras):
        problem = _view_problem(views, view, camera)
        if problem is not None:
            return f"view {view}: {problem}"
    stride = max(1, max(views.depth.shape[1:]) // _SAMPLES)
    patches = [find_patches(views, view, stride) for view in range(len(views.cameras))]
    return _agreement_problem(views, patches) or _normals_problem(patches)


def _view_problem(views: ViewSet, view: int, camera: Camera) -> str | None:
    depth, normals, alpha = views.depth[view], views.normals[view], views.rgba[view, ..., 3]
    hit = depth > 0
    if hit.any():
        _, (origin,) = project(camera, np.zeros((1, 3), dtype=np.float32))
        # Planar depths of points in the sphere differ from its centre's by at most the radius.
        if depth[hit].max() > origin + OBJECT_RADIUS + _TOLERANCE:
            return f"depth {depth[hit].max():.3f} is behind the object"
        if depth[hit].min() < origin - OBJECT_RADIUS - _TOLERANCE:
            return f"depth {depth[hit].min():.3f} is in front of the object"
    length = np.linalg.norm(normals, axis=-1)[hit]
    # A triangle without area has no normal, so a few such pixels are not an error of the render.
    if (np.abs(length - 1) > _TOLERANCE).sum() > _MAX_WITHOUT_NORMAL * hit.sum():
        return "normals are not of unit length"
    mismatch = ((alpha > 250) & ~hit).mean() + ((alpha == 0) & hit).mean()
    if mismatch > _MAX_MISMATCH:
        return f"alpha and depth disagree at {mismatch:.1%} of the pixels"
    return None


def _agreement_problem(views: ViewSet, patches: Sequence[Patches]) -> str | None:
    """Return a problem if views of the same side of the object show different surfaces."""
    agreeing, total, worst, pair = 0.0, 0, 1.0, (0, 0)
    for first, second in pairs_to_compare(views.cameras):
        share, count = depth_agreement(patches[first], views.cameras[second], views.depth[second])
        agreeing, total = agreeing + share * count, total + count
        if count >= _MIN_PIXELS and share < worst:
            worst, pair = share, (first, second)
    worst_pair = f"views {pair[0]} and {pair[1]}"
    if worst < _MIN_PAIR_AGREEMENT:
        return f"depths of {worst_pair} agree at only {worst:.1%} of the pixels visible in both"
    if total >= _MIN_TOTAL_PIXELS and agreeing / total < _MIN_AGREEMENT:
        return (
            f"depths of all views agree at only {agreeing / total:.1%} of the pixels, worst in "
            f"{worst_pair}"
        )
    return None


def _normals_problem(patches: Sequence[Patches]) -> str | None:
    """Return a problem if the normals of a view or a side are not those of its depth."""
    aligned = [(part.facing * part.normals).sum(axis=-1) > _ALIGNED_COSINE for part in patches]
    views = {f"of view {view}": part for view, part in enumerate(aligned)}
    facing = np.concatenate([part.facing for part in patches])
    sides = _by_side(facing, np.concatenate(aligned))
    problems = []
    for groups in (views, sides):
        large = {name: group for name, group in groups.items() if len(group) >= _MIN_PIXELS}
        share, name = min(
            ((group.mean(), name) for name, group in large.items()), default=(1.0, "")
        )
        if share < _MIN_ALIGNED:
            problems.append(f"{share:.1%} of the pixels {name}")
    return f"normals fit the depth at only {' and '.join(problems)}" if problems else None


def _by_side(
    facing: Float32[np.ndarray, "n 3"], aligned: Bool[np.ndarray, "n"]
) -> dict[str, Bool[np.ndarray, "m"]]:
    """Return `aligned` by the side that the pixels face.

    A mirrored axis is wrong on two sides only, and few pixels may face that way.
    """
    axis = np.abs(facing).argmax(axis=-1)
    positive = np.take_along_axis(facing, axis[:, None], axis=-1)[:, 0] > 0
    sides = {}
    for number, name in enumerate("xyz"):
        for sign, mask in (("+", positive), ("-", ~positive)):
            group = aligned[(axis == number) & mask]
            if len(group) >= _MIN_SIDE_SHARE * len(aligned):
                sides[f"that face {sign}{name}"] = group
    return sides
