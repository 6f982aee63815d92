"""The check lets true views pass and names what is false in others."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from dataset.views import ViewSet
from render.check import check_views, depth_agreement
from render.process import RenderFailure
from tests.conftest import sphere_views


def changed(views: ViewSet, **replaced) -> ViewSet:
    return dataclasses.replace(views, **replaced)


def scaled_depth(views: ViewSet) -> ViewSet:
    return changed(views, depth=views.depth * np.float32(1.1))


def far_depth(views: ViewSet) -> ViewSet:
    return changed(views, depth=views.depth * np.float32(257 / 255 * 3))


def shuffled_cameras(views: ViewSet) -> ViewSet:
    return changed(views, cameras=list(views.cameras[1:]) + list(views.cameras[:1]))


def moved_aside(views: ViewSet) -> ViewSet:
    shift = np.roll(views.depth, 9, axis=2)
    alpha = np.roll(views.rgba, 9, axis=2)
    return changed(views, depth=shift, rgba=alpha, normals=np.roll(views.normals, 9, axis=2))


def long_normals(views: ViewSet) -> ViewSet:
    return changed(views, normals=views.normals * np.float32(0.9))


def no_normals(views: ViewSet) -> ViewSet:
    return changed(views, normals=np.zeros_like(views.normals))


def no_number(views: ViewSet) -> ViewSet:
    depth = views.depth.copy()
    depth[0, 30, 30] = np.nan
    return changed(views, depth=depth)


def empty(views: ViewSet) -> ViewSet:
    return changed(views, rgba=np.zeros_like(views.rgba))


def black(views: ViewSet) -> ViewSet:
    rgba = views.rgba.copy()
    rgba[..., :3] = 0
    return changed(views, rgba=rgba)


def opaque_background(views: ViewSet) -> ViewSet:
    rgba = views.rgba.copy()
    rgba[..., 3] = 255
    return changed(views, rgba=rgba)


@pytest.mark.parametrize("seed", range(5))
def test_true_views_pass(seed: int):
    check_views(sphere_views(seed))


def test_a_view_that_misses_the_object_is_no_error():
    views = sphere_views(0)
    for part in (views.rgba, views.depth, views.normals):
        part[3] = 0
    check_views(views)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (scaled_depth, "agree at only"),
        (far_depth, "behind the object"),
        (moved_aside, "agree at only"),
        (shuffled_cameras, "object|agree at only"),
        (long_normals, "unit length"),
        (no_normals, "unit length"),
        (no_number, "no numbers"),
        (empty, "empty"),
        (black, "black"),
        (opaque_background, "alpha and depth disagree"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_false_views_are_told(spoil: Callable[[ViewSet], ViewSet], words: str):
    with pytest.raises(RenderFailure, match=words) as caught:
        check_views(spoil(sphere_views(1)))
    assert caught.value.kind == "bad_output"


def test_agreement_is_of_what_both_views_see():
    """Two sides of a sphere have little in common; a view has everything in common with itself."""
    views = sphere_views(2)
    hit = int((views.depth[0] > 0).sum())
    share, count = depth_agreement(views, 0, 0)
    assert share == 1
    assert 0.8 * hit < count <= hit
    counts = [depth_agreement(views, 0, other)[1] for other in range(1, 12)]
    assert min(counts) < 0.1 * hit < max(counts) <= hit
    second = 1 + int(np.argmax(counts))
    assert depth_agreement(views, 0, second)[0] > 0.99
    assert depth_agreement(scaled_depth(views), 0, second)[0] < 0.9
