"""Looks at rendered views for what cannot be: nothing false is ever packed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from core.failures import FailureKind
from dataset.cameras import Camera, project
from dataset.views import OBJECT_RADIUS, ViewSet
from render.agreement import Patches, depth_agreement, find_patches, pairs_to_compare
from render.process import RenderFailure

__all__ = ["check_views"]

_SLACK = 1e-3
_BLACK = 2
"""In 8 bits. Even a black object reflects some of the light around it."""
_MOST_MISMATCH = 0.05
"""Share of the pixels at which alpha and depth may disagree about object or background."""
_MOST_WITHOUT_NORMAL = 0.01
_FEWEST = 100
"""Pixels that must speak on a pair of views, a view or a side before an object fails."""
_FEWEST_IN_ALL = 1000
_SAMPLES = 128
"""Surfaces are compared at so many pixels of a view each way, whatever its resolution."""

# Measured on 71 real models (`lrm32`, 96 to 512 pixels). True: depths agree at 99.99 % of the
# pixels or more, where 1,000 speak; normals lie within 60 degrees of those that depth implies at
# 89 % or more of every view and side. False: depth 3 % too large agrees at 97 % or less from 256
# pixels on; of normals in camera axes, y up, turned round or with two axes swapped, some side has
# 34 % or less, unless the object faces so few ways that they are hardly changed.
_LEAST_AGREEMENT = 0.99
_LEAST_PAIR_AGREEMENT = 0.9
_LEAST_ALIGNED = 0.4
_ALIGNED_COSINE = 0.5
"""Of 60 degrees: shading normals are interpolated and bent by normal maps."""
_LEAST_OF_A_SIDE = 0.01
"""Share of the pixels that must face the same way (+x, -x, +y ...) to be judged as a side."""


def check_views(views: ViewSet) -> None:
    """Raise RenderFailure (`bad_output`) if the views contradict themselves or their cameras."""
    problem = _problem(views)
    if problem is not None:
        raise RenderFailure(FailureKind.BAD_OUTPUT, problem)


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
    stride = max(1, max(views.depth.shape[1:]) // _SAMPLES)
    patches = [find_patches(views, view, stride) for view in range(len(views.cameras))]
    return _agreement_problem(views, patches) or _normals_problem(patches)


def _view_problem(views: ViewSet, view: int, camera: Camera) -> str | None:
    depth, normals, alpha = views.depth[view], views.normals[view], views.rgba[view, ..., 3]
    hit = depth > 0
    if hit.any():
        _, (origin,) = project(camera, np.zeros((1, 3), dtype=np.float32))
        # Planar depth of points in the sphere: that of its centre, give or take the radius.
        if depth[hit].max() > origin + OBJECT_RADIUS + _SLACK:
            return f"depth {depth[hit].max():.3f} is behind the object"
        if depth[hit].min() < origin - OBJECT_RADIUS - _SLACK:
            return f"depth {depth[hit].min():.3f} is before the object"
    length = np.linalg.norm(normals, axis=-1)[hit]
    # A triangle without area has no normal: a few such pixels are the object's own.
    if (np.abs(length - 1) > _SLACK).sum() > _MOST_WITHOUT_NORMAL * hit.sum():
        return "normals are not of unit length"
    mismatch = ((alpha > 250) & ~hit).mean() + ((alpha == 0) & hit).mean()
    if mismatch > _MOST_MISMATCH:
        return f"alpha and depth disagree at {mismatch:.1%} of the pixels"
    return None


def _agreement_problem(views: ViewSet, patches: Sequence[Patches]) -> str | None:
    """Views of one side of the object must see the same surface."""
    agreeing, total, worst, pair = 0.0, 0, 1.0, (0, 0)
    for first, second in pairs_to_compare(views.cameras):
        share, count = depth_agreement(patches[first], views.cameras[second], views.depth[second])
        agreeing, total = agreeing + share * count, total + count
        if count >= _FEWEST and share < worst:
            worst, pair = share, (first, second)
    named = f"views {pair[0]} and {pair[1]}"
    if worst < _LEAST_PAIR_AGREEMENT:
        return f"depths of {named} agree at only {worst:.1%} of the pixels that both see"
    if total >= _FEWEST_IN_ALL and agreeing / total < _LEAST_AGREEMENT:
        return f"depths of all views agree at only {agreeing / total:.1%}, worst between {named}"
    return None


def _normals_problem(patches: Sequence[Patches]) -> str | None:
    """Normals must be those of the surface that the depth shows: in each view, on every side."""
    aligned = [(part.facing * part.normals).sum(axis=-1) > _ALIGNED_COSINE for part in patches]
    views = {f"of view {view}": part for view, part in enumerate(aligned)}
    facing = np.concatenate([part.facing for part in patches])
    sides = _by_side(facing, np.concatenate(aligned))
    found = []
    for groups in (views, sides):
        shares = [(group.mean(), name) for name, group in groups.items() if len(group) >= _FEWEST]
        share, name = min(shares, default=(1.0, ""))
        if share < _LEAST_ALIGNED:
            found.append(f"{share:.1%} of the pixels {name}")
    return f"normals fit the depth at only {' and '.join(found)}" if found else None


def _by_side(
    facing: Float32[np.ndarray, "n 3"], aligned: Bool[np.ndarray, "n"]
) -> dict[str, Bool[np.ndarray, "m"]]:
    """One mirrored axis shows on two sides only, however few pixels face that way."""
    axis = np.abs(facing).argmax(axis=-1)
    positive = np.take_along_axis(facing, axis[:, None], axis=-1)[:, 0] > 0
    sides = {}
    for number, name in enumerate("xyz"):
        for sign, chosen in (("+", positive), ("-", ~positive)):
            group = aligned[(axis == number) & chosen]
            if len(group) >= _LEAST_OF_A_SIDE * len(aligned):
                sides[f"that face {sign}{name}"] = group
    return sides
