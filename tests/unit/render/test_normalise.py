"""Placement of a surface in the normalised frame, whatever its size and distance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from render.blender.failure import SceneFailure
from render.blender.surfaces.clean import clean
from render.blender.surfaces.normalise import check_distance, compose, normalise
from tests.support.triangle_surfaces import cube, join, material, quad


@pytest.mark.parametrize("how", ["cube", "sphere"])
@given(scale=st.floats(1e-200, 1e200), shift=st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_any_scale_and_place_gives_the_same_surface(how: str, scale: float, shift: list[float]):
    placed = cube()
    expected = normalise(placed, how)
    placed.positions[:] = (placed.positions + shift) * scale
    result = normalise(placed, how)
    np.testing.assert_allclose(result.surface.positions, expected.surface.positions, atol=1e-12)
    assert result.scale * scale == pytest.approx(expected.scale)


@pytest.mark.parametrize("scale", [1e-250, 1e-90, 1.0, 1e90, 1e250])
def test_the_rules_see_surfaces_of_any_scale(scale: float):
    """They square and multiply coordinates, so they are applied in the frame of the surface."""
    layers = join(quad(), quad(), cube())
    layers.positions[:] *= scale
    layers.materials[2:4] = 1
    looks = {0: material(), 1: material(alphaMode="BLEND")}
    whole = normalise(layers, "cube")
    cleaned = clean(whole.surface, looks, {}, cull_shells=True)
    result = compose(whole, normalise(cleaned.surface, "cube"))
    assert len(result.surface.faces) == len(layers.faces)
    heights = result.surface.triangles[:4].mean(axis=1)
    assert 1e-5 < np.abs(heights[2:] - heights[:2]).max() < 1e-3
    assert result.scale == pytest.approx(whole.scale, rel=1e-3)


def test_one_point_is_empty():
    point = cube()
    point.positions[:] = 7
    with pytest.raises(SceneFailure, match="at one point") as caught:
        normalise(point, "cube")
    assert caught.value.kind == "empty"


@pytest.mark.parametrize("size", [1e-300, 1.7e308])
def test_sizes_beyond_double_precision_are_refused(size: float):
    huge = cube(2)
    huge.positions[:] *= size
    with pytest.raises(SceneFailure, match="size exceeds") as caught:
        normalise(huge, "cube")
    assert caught.value.kind == "refused"


def test_the_limit_of_the_distance():
    normalised = normalise(cube(), "cube")
    size = 2 / normalised.scale
    check_distance(normalised, np.array([0.99e11 * size]))
    with pytest.raises(SceneFailure, match="too far from the origin: 1e\\+11 times its size"):
        check_distance(normalised, np.array([1.01e11 * size]))
