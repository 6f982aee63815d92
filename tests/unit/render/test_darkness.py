"""The share of black places on spheres whose pictures are computed without a renderer."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest

from dataset.cameras import unproject
from dataset.views import ViewSet
from render.agreement import find_patches
from render.check import check_render
from render.darkness import dark_share
from render.frames import BaseColours
from render.process import RenderFailure, RenderReport
from render.render_config import RenderConfig
from tests.support.analytic_shapes import Box, cast_rays_at_boxes
from tests.support.sphere_datasets import sphere_views

LIGHT = (0.78, 0.28)


@functools.cache
def bodies() -> tuple[ViewSet, np.ndarray]:
    """Return views of a white sphere, and points on its surface."""
    views = sphere_views(1, num_views=6, size=96)
    white = np.where(views.rgba[..., 3:] > 0, np.uint8(240), np.uint8(0))
    rgba = np.concatenate([np.repeat(white, 3, axis=-1), views.rgba[..., 3:]], axis=-1)
    points = np.concatenate([find_patches(views, view).points for view in range(6)])
    return dataclasses.replace(views, rgba=rgba), points[::2]


def coloured(points: np.ndarray, colours: Any = 1.0, lit: bool = True) -> BaseColours:
    colours = np.broadcast_to(np.asarray(colours, dtype=np.float32), points.shape)
    return BaseColours(
        points=points.astype(np.float32), colours=colours, lit=np.full(len(points), lit)
    )


def painted(views: ViewSet, where: np.ndarray, level: int = 0) -> ViewSet:
    """Return the views with a level in the colours of some pixels (v, h, w)."""
    rgba = views.rgba.copy()
    rgba[..., :3][where] = level
    return dataclasses.replace(views, rgba=rgba)


def blackened(level: int = 0) -> ViewSet:
    views, _ = bodies()
    return painted(views, views.depth > 0, level)


def test_a_white_body_in_a_white_picture_has_no_dark_part():
    views, points = bodies()
    assert dark_share(views, coloured(points), *LIGHT) == 0


def test_a_white_body_in_a_black_picture_is_dark_everywhere():
    _, points = bodies()
    assert dark_share(blackened(), coloured(points), *LIGHT) == 1


def test_noise_of_few_samples_is_not_dark():
    """One sample of a rough metal gives black pixels; a black part is black everywhere."""
    views, points = bodies()
    noise = np.random.default_rng(0).random(views.depth.shape) < 0.36
    noisy = painted(views, noise & (views.depth > 0))
    assert dark_share(noisy, coloured(points), *LIGHT, samples=1) < 0.001
    assert dark_share(noisy, coloured(points), *LIGHT, samples=4) > 0.3
    half = views.normals[..., 0] > 0
    expected = dark_share(painted(views, half), coloured(points), *LIGHT)
    share = dark_share(painted(noisy, half), coloured(points), *LIGHT, samples=1)
    assert 0.3 < share == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("colour", [0.0, 0.04], ids=["black", "nearly black"])
def test_a_black_body_is_not_dark(colour: float):
    _, points = bodies()
    assert dark_share(blackened(), coloured(points, colour), *LIGHT) == 0


@pytest.mark.parametrize("area", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("direction", [(1, 0, 0), (0, -0.8, 0.6)])
def test_the_share_is_that_of_the_black_part(area: float, direction: tuple[float, float, float]):
    """A cap of the sphere is black."""
    views, points = bodies()
    inside = views.normals @ np.float32(direction) > 1 - 2 * area
    outward = points / np.linalg.norm(points, axis=1, keepdims=True)
    eyes = np.stack([camera.camera_to_world[:3, 3] for camera in views.cameras])
    sight = eyes[:, None] - points
    facing = (sight * outward).sum(axis=-1) > 0.25 * np.linalg.norm(sight, axis=-1)
    black = facing & (outward @ np.float32(direction) > 1 - 2 * area)
    share = dark_share(painted(views, inside), coloured(points), *LIGHT)
    assert share == pytest.approx(black.sum() / facing.sum(), abs=0.02)
    assert (share > 0.04) == (black.sum() / facing.sum() > 0.04)


@pytest.mark.parametrize(("level", "dark"), [(0, 1), (20, 1), (40, 0)])
def test_shade_is_not_dark(level: int, dark: int):
    """The darkest side of a white body has a linear value of 0.59; 3 % of it is level 37."""
    _, points = bodies()
    assert dark_share(blackened(level), coloured(points), *LIGHT) == dark


def test_a_body_in_the_dark_is_not_compared_unless_it_is_unlit():
    _, points = bodies()
    for light in ((0.0, 0.0), (0.1, 0.2)):
        assert dark_share(blackened(), coloured(points), *light) == 0
        assert dark_share(blackened(), coloured(points, lit=False), *light) == 1


def test_a_few_points_say_nothing():
    _, points = bodies()
    assert dark_share(blackened(), coloured(points[:20]), *LIGHT) == 0


def test_thin_parts_are_compared():
    """Rods are two pixels wide: no pixel there has neighbours on one smooth surface."""
    rods = [
        Box(low=(x, -0.02, -0.9), high=(x + 0.04, 0.02, 0.9), colour=(255, 255, 255))
        for x in (-0.8, -0.2, 0.4)
    ]
    cameras = bodies()[0].cameras
    truths = [cast_rays_at_boxes(rods, camera, 96) for camera in cameras]
    hit = np.stack([truth.face >= 0 for truth in truths])[..., None]
    views = ViewSet(
        cameras=cameras,
        rgba=np.concatenate(
            [np.zeros((*hit.shape[:3], 3), np.uint8), np.uint8(255) * hit], axis=-1
        ),
        depth=np.stack([truth.depth for truth in truths]).astype(np.float32),
        normals=np.stack([truth.normals for truth in truths]).astype(np.float32),
    )
    assert sum(len(find_patches(views, view).points) for view in range(6)) < 0.05 * hit.sum()
    rng = np.random.default_rng(0)
    low, high = (np.array([getattr(rod, end) for rod in rods]) for end in ("low", "high"))
    points = rng.uniform(low, high, (800, 3, 3)).reshape(-1, 3)
    points[:, 1] = rng.choice([-0.02, 0.02], len(points))
    assert dark_share(views, coloured(points), *LIGHT) == 1


def stripes(heights: np.ndarray, black: float) -> np.ndarray:
    """Return 0 in a part of every stripe of 0.1 units, about 4 pixels, and 1 elsewhere."""
    return np.where(heights / 0.1 % 1 < black, 0.0, 1.0)


def test_a_pattern_that_is_shifted_by_less_than_a_pixel_is_not_dark():
    views, points = bodies()
    pairs = zip(views.cameras, views.depth, strict=True)
    heights = np.stack([unproject(*pair)[..., 2] for pair in pairs])
    picture = painted(views, stripes(heights + 0.015, 0.5) == 0)
    assert dark_share(picture, coloured(points, stripes(points[:, 2:], 0.5)), *LIGHT) < 0.01


def test_a_pattern_that_is_black_everywhere_is_dark():
    _, points = bodies()
    colours = stripes(points[:, 2:], 0.2)
    assert dark_share(blackened(), coloured(points, colours), *LIGHT) > 0.3


@pytest.mark.parametrize("scale", [1.001, 1.1], ids=["a layer", "glass"])
def test_a_black_or_see_through_surface_in_front_is_the_cause(scale: float):
    _, points = bodies()
    white, black = points[::2], points[1::2] * scale
    colours = np.repeat([1.0, 0.0], [len(white), len(black)])[:, None]
    both = coloured(np.concatenate([white, black]), colours)
    assert dark_share(blackened(), both, *LIGHT) < 0.02
    assert dark_share(blackened(), coloured(white), *LIGHT) == 1


@pytest.mark.parametrize("area", [0.0, 0.01, 0.25, 1.0])
def test_the_check_returns_a_small_share_and_refuses_a_large_one(area: float):
    views, points = bodies()
    picture = painted(views, views.normals[..., 2] > 1 - 2 * area)
    report = RenderReport(samples=4, timings={}, base_colours=coloured(points))
    share = dark_share(picture, report.base_colours, *LIGHT)
    if area < 0.25:
        assert check_render(picture, report, RenderConfig()) == share < 0.04
        return
    message = f"{share:.1%} of the visible surface is black, although its base colour is not"
    with pytest.raises(RenderFailure, match=message) as caught:
        check_render(picture, report, RenderConfig())
    assert caught.value.kind == "bad_output"
