"""The check accepts correct views and reports what is wrong in others."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pytest

from dataset.cameras import rays
from dataset.views import ViewSet
from render.agreement import depth_agreement, find_patches, pairs_to_compare
from render.check import check_views
from render.process import RenderFailure
from render.rigs import RIGS, get_rig
from tests.support.analytic_shapes import cast_rays_at_boxes, letter_block
from tests.support.sphere_datasets import sphere_views


@functools.cache
def block_views() -> ViewSet:
    """Return the first views of `lrm32` of the block with a letter, without any renderer."""
    cameras = get_rig("lrm32").cameras("block")[:12]
    images = [cast_rays_at_boxes(letter_block(), camera, 128) for camera in cameras]
    hit = np.stack([image.face >= 0 for image in images])
    return ViewSet(
        cameras=cameras,
        rgba=np.repeat(np.uint8(255) * hit[..., None], 4, axis=-1),
        depth=np.stack([image.depth for image in images]).astype(np.float32),
        normals=np.stack([image.normals for image in images]).astype(np.float32),
    )


@functools.cache
def first_sphere() -> ViewSet:
    return sphere_views(1)


BODIES = {"sphere": first_sphere, "block": block_views}


def changed(views: ViewSet, **replaced) -> ViewSet:
    return dataclasses.replace(views, **replaced)


def scaled_depth(views: ViewSet) -> ViewSet:
    return changed(views, depth=views.depth * np.float32(1.1))


def far_depth(views: ViewSet) -> ViewSet:
    return changed(views, depth=views.depth * np.float32(257 / 255 * 3))


def shuffled_cameras(views: ViewSet) -> ViewSet:
    return changed(views, cameras=list(views.cameras[1:]) + list(views.cameras[:1]))


def shifted_images(views: ViewSet) -> ViewSet:
    shift = np.roll(views.depth, 9, axis=2)
    alpha = np.roll(views.rgba, 9, axis=2)
    return changed(views, depth=shift, rgba=alpha, normals=np.roll(views.normals, 9, axis=2))


def one_far_view(views: ViewSet) -> ViewSet:
    depth = views.depth.copy()
    depth[3] *= np.float32(1.1)
    return changed(views, depth=depth)


def one_empty_view(views: ViewSet) -> ViewSet:
    parts = {"rgba": views.rgba, "depth": views.depth, "normals": views.normals}
    shown = np.arange(len(views.cameras)) != 3
    return changed(views, **{name: (part.T * shown).T for name, part in parts.items()})


def ray_lengths_as_depth(views: ViewSet) -> ViewSet:
    lengths = [
        np.linalg.norm(rays(camera, *depth.shape)[1], axis=-1) * depth
        for camera, depth in zip(views.cameras, views.depth, strict=True)
    ]
    return changed(views, depth=np.stack(lengths).astype(np.float32))


def long_normals(views: ViewSet) -> ViewSet:
    return changed(views, normals=views.normals * np.float32(0.9))


def no_normals(views: ViewSet) -> ViewSet:
    return changed(views, normals=np.zeros_like(views.normals))


def nan_depth(views: ViewSet) -> ViewSet:
    depth = views.depth.copy()
    depth[0, 30, 30] = np.nan
    return changed(views, depth=depth)


def empty(views: ViewSet) -> ViewSet:
    return changed(views, rgba=np.zeros_like(views.rgba))


def opaque_background(views: ViewSet) -> ViewSet:
    rgba = views.rgba.copy()
    rgba[..., 3] = 255
    return changed(views, rgba=rgba)


def normals_in_camera_axes(views: ViewSet) -> ViewSet:
    rotated = [
        normals @ camera.camera_to_world[:3, :3]
        for camera, normals in zip(views.cameras, views.normals, strict=True)
    ]
    return changed(views, normals=np.stack(rotated))


def inverted_normals(views: ViewSet) -> ViewSet:
    return changed(views, normals=-views.normals)


def swapped_normals(views: ViewSet) -> ViewSet:
    return changed(views, normals=views.normals[..., [0, 2, 1]])


def mirrored_normals(views: ViewSet) -> ViewSet:
    return changed(views, normals=views.normals * np.float32([-1, 1, 1]))


def y_up_normals(views: ViewSet) -> ViewSet:
    return changed(views, normals=views.normals[..., [0, 2, 1]] * np.float32([1, 1, -1]))


def one_view_with_inverted_normals(views: ViewSet) -> ViewSet:
    normals = views.normals.copy()
    normals[5] *= -1
    return changed(views, normals=normals)


@pytest.mark.parametrize("seed", range(5))
def test_correct_views_pass(seed: int):
    check_views(sphere_views(seed))


def test_correct_views_of_an_asymmetric_body_pass():
    check_views(block_views())


@pytest.mark.parametrize("bend", [0.2, 0.4])
def test_normals_bent_by_a_normal_map_pass(bend: float):
    views = block_views()
    rough = np.random.default_rng(0).normal(size=views.normals.shape) * bend
    normals = views.normals + rough * views.normals.any(axis=-1, keepdims=True)
    length = np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    check_views(changed(views, normals=(normals / length).astype(np.float32)))


def test_a_view_that_does_not_show_the_object_passes():
    views = one_empty_view(sphere_views(0))
    away = views.cameras[3].camera_to_world @ np.diag(np.float32([-1, 1, -1, 1]))
    cameras = list(views.cameras)
    cameras[3] = dataclasses.replace(cameras[3], camera_to_world=away)
    check_views(changed(views, cameras=cameras))


@pytest.mark.parametrize(
    "damage, message",
    [
        (scaled_depth, r"depths of views \d+ and \d+ agree at only \d"),
        (one_far_view, r"depths of views (3 and \d+|\d+ and 3) agree at only \d"),
        (one_empty_view, r"depths of views \d+ and 3 agree at only 0.0%"),
        (ray_lengths_as_depth, "agree at only"),
        (far_depth, "behind the object"),
        (shifted_images, "agree at only"),
        (shuffled_cameras, "object|agree at only"),
        (long_normals, "unit length"),
        (no_normals, "unit length"),
        (nan_depth, "non-finite"),
        (empty, "empty"),
        (opaque_background, "alpha and depth disagree"),
        (normals_in_camera_axes, "normals fit the depth at only"),
        (inverted_normals, "normals fit the depth at only 0.0% of the pixels"),
        (swapped_normals, "pixels that face [+-][yz]"),
        (mirrored_normals, "pixels that face [+-]x"),
        (y_up_normals, "pixels that face [+-][yz]"),
        (
            one_view_with_inverted_normals,
            "normals fit the depth at only 0.0% of the pixels of view 5$",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("body", BODIES)
def test_wrong_views_are_rejected(body: str, damage: Callable[[ViewSet], ViewSet], message: str):
    with pytest.raises(RenderFailure, match=message) as caught:
        check_views(damage(BODIES[body]()))
    assert caught.value.kind == "bad_output"


def agreement(views: ViewSet, first: int, second: int) -> tuple[float, int]:
    return depth_agreement(find_patches(views, first), views.cameras[second], views.depth[second])


def test_agreement_covers_the_surface_that_both_views_show():
    """Opposite views of a sphere share little surface; a view shares all of it with itself."""
    views = sphere_views(2)
    hit = int((views.depth[0] > 0).sum())
    share, count = agreement(views, 0, 0)
    assert share == 1
    assert 0.7 * hit < count <= hit
    counts = [agreement(views, 0, other)[1] for other in range(1, 12)]
    assert min(counts) < 0.1 * hit < max(counts) <= hit
    second = 1 + int(np.argmax(counts))
    assert agreement(views, 0, second)[0] > 0.99
    assert agreement(scaled_depth(views), 0, second)[0] < 0.9


def test_depth_implies_the_normals_of_both_bodies():
    for views, max_median in ((sphere_views(3), 3.0), (block_views(), 0.2)):
        for view in range(12):
            patches = find_patches(views, view)
            assert len(patches.points) > 0.4 * (views.depth[view] > 0).sum()
            cosine = (patches.facing * patches.normals).sum(axis=-1).clip(-1, 1)
            assert np.median(np.degrees(np.arccos(cosine))) < max_median


@pytest.mark.parametrize("rig", RIGS)
def test_every_view_is_compared_with_one_that_shows_much_of_the_same_surface(rig: str):
    cameras = get_rig(rig).cameras("an object")
    pairs = pairs_to_compare(cameras)
    assert (
        {first for first, _ in pairs} == {second for _, second in pairs} == set(range(len(cameras)))
    )
    backward = np.stack([camera.camera_to_world[:3, 2] for camera in cameras])
    for first, second in pairs:
        assert 15 <= np.degrees(np.arccos(backward[first] @ backward[second])) < 70
    assert len(pairs) <= 2 * len(cameras)


def test_views_from_one_direction_are_not_compared():
    views = block_views()
    assert pairs_to_compare([views.cameras[0]] * 2) == []
    check_views(
        changed(
            views,
            cameras=views.cameras[:1],
            rgba=views.rgba[:1],
            depth=views.depth[:1],
            normals=views.normals[:1],
        )
    )
