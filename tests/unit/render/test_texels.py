"""The texels that a sampler shows at texture coordinates."""

import numpy as np
import pytest

from render.blender.surfaces.texels import linear_from_srgb, nearest_texels
from render.frames import srgb_from_linear

REPEAT, CLAMP, MIRROR = 10497, 33071, 33648
IMAGE = np.arange(4 * 3 * 4, dtype=np.float32).reshape(3, 4, 4)
"""Three rows of four texels."""


def texels(*coordinates: tuple[float, float], wrap: int = REPEAT) -> list[tuple[int, int]]:
    """Return row and column of the texel at each coordinate."""
    found = nearest_texels(IMAGE, np.array(coordinates, dtype=np.float64), wrap, wrap)
    return [(int(value[0]) // 16, int(value[0]) // 4 % 4) for value in found]


@pytest.mark.parametrize("wrap", [REPEAT, CLAMP, MIRROR])
def test_the_first_texel_is_at_the_upper_left(wrap: int):
    corners = texels((0.01, 0.01), (0.99, 0.01), (0.01, 0.99), (0.6, 0.5), wrap=wrap)
    assert corners == [(0, 0), (0, 3), (2, 0), (1, 2)]


@pytest.mark.parametrize(
    ("wrap", "columns"),
    [
        (REPEAT, [3, 3, 0, 1, 0]),
        (CLAMP, [0, 0, 3, 3, 3]),
        (MIRROR, [0, 0, 3, 2, 0]),
    ],
)
def test_the_image_continues_as_its_sampler_says(wrap: int, columns: list[int]):
    places = [(-0.01, 0.5), (-4.01, 0.5), (1.01, 0.5), (1.3, 0.5), (8.01, 0.5)]
    assert [column for _, column in texels(*places, wrap=wrap)] == columns


@pytest.mark.parametrize("wrap", [REPEAT, CLAMP, MIRROR])
def test_the_edge_belongs_to_the_image(wrap: int):
    assert texels((0.0, 0.0), wrap=wrap) == [(0, 0)]
    inside = {(row, column) for row in range(3) for column in range(4)}
    assert set(texels((1.0, 1.0), (-1e-30, 1e30), (np.nan, np.inf), wrap=wrap)) <= inside


def test_colours_are_decoded_by_the_inverse_of_the_curve_that_encodes_them():
    levels = np.arange(256, dtype=np.float32) / 255
    np.testing.assert_allclose(srgb_from_linear(linear_from_srgb(levels)), levels, atol=1e-5)
