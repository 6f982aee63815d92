"""Which triangles may show a texel: never too few, and few enough for atlases."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from render.blender.surfaces.alpha_texture import (
    AlphaTexture,
    shows_alpha,
    texture_coordinates,
)
from tests.support.triangle_surfaces import quad

REPEAT, CLAMP, MIRROR = 10497, 33071, 33648


def continued(texel: int, size: int, wrap: int) -> int:
    """Return the texel of the image that a sampler reads at any texel of the plane."""
    if wrap == CLAMP:
        return min(max(texel, 0), size - 1)
    if wrap == REPEAT:
        return texel % size
    within = texel % (2 * size)
    return within if within < size else 2 * size - 1 - within


def read_texels(low: float, high: float, size: int, wrap: int) -> set[int]:
    first, last = int(np.floor(low * size - 0.5)), int(np.floor(high * size - 0.5)) + 1
    return {continued(texel, size, wrap) for texel in range(first, last + 1)}


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([REPEAT, CLAMP, MIRROR]),
    st.sampled_from([REPEAT, CLAMP, MIRROR]),
    st.lists(st.floats(-3, 3, width=16), min_size=6, max_size=6),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=300, deadline=None)
def test_exactly_the_texels_of_the_bounds_count(width, height, wrap_s, wrap_t, numbers, seed):
    alpha = np.where(np.random.default_rng(seed).random((height, width)) < 0.1, 200, 0)
    texture = AlphaTexture(alpha=alpha.astype(np.uint8), wrap_s=wrap_s, wrap_t=wrap_t)
    corners = np.array(numbers).reshape(1, 3, 2)
    (low, high) = corners[0].min(axis=0), corners[0].max(axis=0)
    columns = sorted(read_texels(low[0], high[0], width, wrap_s))
    rows = sorted(read_texels(low[1], high[1], height, wrap_t))
    expected = alpha[np.ix_(rows, columns)].max() >= 100
    assert shows_alpha(texture, corners, 100 / 255).tolist() == [expected]
    floating = replace(texture, alpha=(alpha / 255).astype(np.float32))
    assert shows_alpha(floating, corners, 100 / 255).tolist() == [expected]


@pytest.mark.parametrize("wrap", [REPEAT, CLAMP, MIRROR])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_coordinates_that_are_no_numbers_may_show_anything(wrap: int, value: float):
    alpha = np.zeros((4, 4), dtype=np.uint8)
    alpha[0, 0] = 255
    texture = AlphaTexture(alpha=alpha, wrap_s=wrap, wrap_t=wrap)
    corners = np.full((1, 3, 2), 0.9)
    corners[0, 1] = value
    assert shows_alpha(texture, corners, 0.5).tolist() == [True]


@pytest.mark.parametrize(("level", "expected"), [(0, True), (0.002, False), (1, False)])
def test_nothing_is_shown_by_an_empty_image_unless_nothing_is_asked(level: float, expected: bool):
    texture = AlphaTexture(alpha=np.zeros((4, 4), dtype=np.uint8))
    assert shows_alpha(texture, np.zeros((2, 3, 2)), level).tolist() == [expected] * 2


def transformed(**transform) -> np.ndarray:
    slot = {"index": 0, "extensions": {"KHR_texture_transform": transform}}
    surface = replace(quad(), uvs=quad().uvs | {1: quad().uvs[0] + 5})
    return texture_coordinates(surface, slot, np.array([0]))[0]


def test_texture_coordinates_are_transformed_as_in_gltf():
    corners = quad().uvs[0][[0, 1, 2]]
    assert np.allclose(corners, [[0, 0], [1, 0], [1, 1]])
    assert np.allclose(transformed(), corners)
    assert np.allclose(transformed(offset=[2, 3], scale=[2, 4]), [[2, 3], [4, 3], [4, 7]])
    # Counter-clockwise as seen, while v points down: (1, 0) is turned up.
    assert np.allclose(transformed(rotation=np.pi / 2), [[0, 0], [0, -1], [1, -1]])
    assert np.allclose(transformed(texCoord=1), corners + 5)
    assert np.allclose(transformed(texCoord=7), 0)


def test_the_set_is_the_one_of_the_texture_unless_the_transform_names_one():
    surface = replace(quad(), uvs=quad().uvs | {1: quad().uvs[0] + 5})
    slot = {"index": 0, "texCoord": 1}
    assert np.allclose(texture_coordinates(surface, slot, np.array([1])), surface.uvs[1][[0, 2, 3]])
    slot["extensions"] = {"KHR_texture_transform": {"texCoord": 0}}
    assert np.allclose(texture_coordinates(surface, slot, np.array([1])), surface.uvs[0][[0, 2, 3]])


def test_one_texture_answers_for_several_levels():
    alpha = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    texture = AlphaTexture(alpha=alpha, wrap_s=33071, wrap_t=33071)
    corners = np.full((1, 3, 2), 0.0)  # the first texel only
    corners[0, 1] = [0.9, 0.1]  # and the second
    levels = (0.3, 0.5, 0.3, 0.0, 0.5)
    assert [bool(shows_alpha(texture, corners, level)[0]) for level in levels] == [
        level < 100 / 255 for level in levels
    ]
