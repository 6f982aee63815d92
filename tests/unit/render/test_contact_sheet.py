"""A contact sheet shows every view three times."""

import numpy as np
import pytest

from render.contact_sheet import contact_sheet
from tests.support.sphere_datasets import sphere_views

TILE = 64


@pytest.mark.parametrize("count, size", [(1, (1, 1)), (8, (8, 1)), (12, (8, 2))])
def test_the_size_of_a_sheet(count: int, size: tuple[int, int]):
    views = sphere_views(0, num_views=count)
    assert contact_sheet(views, tile=TILE).size == (size[0] * TILE, size[1] * 3 * TILE)
    titled = contact_sheet(views, title="a sphere", tile=TILE)
    assert titled.width == size[0] * TILE
    assert 0 < titled.height - size[1] * 3 * TILE < TILE


def test_each_image_is_at_its_position():
    views = sphere_views(3, num_views=2)
    sheet = contact_sheet(views, title="a sphere", tile=TILE)
    pixels = np.asarray(sheet).astype(int)[sheet.height - 3 * TILE :]
    for view in range(2):
        column = slice(view * TILE, (view + 1) * TILE)
        colour, depth, normal = (pixels[k * TILE : (k + 1) * TILE, column] for k in range(3))
        opaque = views.rgba[view, ..., 3] == 255
        np.testing.assert_array_equal(colour[opaque], views.rgba[view][opaque][:, :3])
        # The label is in a corner; the other corners are white.
        assert (colour[-1, -1] == 255).all()
        assert (depth[-1, -1] == 0).all()
        near, far = views.depth[view][opaque].argmin(), views.depth[view][opaque].argmax()
        assert depth[opaque][near][0] > depth[opaque][far][0] > 0
        expected = np.rint((views.normals[view][opaque] + 1) * 127.5)
        np.testing.assert_allclose(normal[opaque], expected, atol=1)


@pytest.mark.parametrize(
    "title", ["", "Ünïcode \u4e2d\u6587 \U0001f600", "line\nbreak\0", "x" * 999]
)
def test_any_name_can_be_a_title(title: str):
    views = sphere_views(0, num_views=1)
    assert contact_sheet(views, title=title, tile=TILE).size[0] == TILE


def test_a_view_without_the_object_is_drawn():
    views = sphere_views(0, num_views=1)
    for part in (views.rgba, views.depth, views.normals):
        part[:] = 0
    contact_sheet(views, tile=TILE)
