"""Outlines, skies and rooms are found; reversed objects, mugs and cars are not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glb.geometry.surface import Surface
from render.blender.surfaces.shells import inward_shells
from tests.support.triangle_surfaces import (
    cube,
    join,
    material,
    quad,
    reorder,
    reverse,
    rotation,
    sphere,
    torus,
)

BODY, OUTLINE, DOUBLE = range(3)
MATERIALS = {
    BODY: material(),
    OUTLINE: material(alphaMode="OPAQUE"),
    DOUBLE: material(doubleSided=True),
}


def painted(surface: Surface, number: int) -> Surface:
    return replace(surface, materials=np.full(len(surface.faces), number, dtype=np.int32))


def stretched(surface: Surface, *size: float) -> Surface:
    return replace(surface, positions=surface.positions * size)


def moved(surface: Surface, *offset: float) -> Surface:
    return replace(surface, positions=surface.positions + offset)


def hull(surface: Surface, thickness: float = 0.03) -> Surface:
    """Return the outline of a smooth body."""
    grown = replace(surface, positions=surface.positions + thickness * surface.normals)
    return painted(reverse(grown), OUTLINE)


def shells(*surfaces: Surface) -> list[int]:
    """Return the numbers of the surfaces that are shells, wholly; the others must not be."""
    surface = join(*surfaces)
    mask = inward_shells(surface, MATERIALS)
    shares = np.bincount(surface.parts, mask) / np.bincount(surface.parts)
    assert set(shares) <= {0.0, 1.0}
    return np.flatnonzero(shares).tolist()


FIGURE = [
    moved(stretched(sphere(), 0.5, 0.3, 0.7), 0, 0, 0.2),
    sphere(0.35, (0, 0, 1.1)),
    moved(stretched(sphere(), 0.6, 0.1, 0.1), 0.8, 0, 0.6),
    moved(stretched(sphere(), 0.6, 0.1, 0.1), -0.8, 0, 0.6),
    moved(stretched(sphere(), 0.15, 0.15, 0.6), 0.2, 0, -0.8),
    moved(stretched(sphere(), 0.15, 0.15, 0.6), -0.2, 0, -0.8),
]
"""Body, head, two arms and two legs."""
ROOM = [
    moved(quad(4), 0, 0, -2),
    moved(replace(quad(4), positions=quad(4).positions[:, [2, 0, 1]]), -2, 0, 0),
    moved(replace(quad(4), positions=quad(4).positions[:, [1, 2, 0]]), 0, -2, 0),
]
"""The floor and two walls, facing the corner in the direction of all three axes."""


@pytest.mark.parametrize("body", [cube(), sphere(), stretched(sphere(), 0.1, 1, 2)])
@pytest.mark.parametrize("thickness", [0.002, 0.03, 0.2])
def test_the_outline_of_a_body_is_a_shell(body: Surface, thickness: float):
    # The sides of the cube's outline do not meet, so it is scaled.
    outline = stretched(body, *[1 + thickness] * 3)
    assert shells(body, painted(reverse(outline), OUTLINE)) == [1]
    assert shells(painted(reverse(outline), BODY), body) == [0]


def test_the_outline_of_a_ring_is_a_shell():
    assert shells(torus(0.4), reverse(torus(0.43))) == [1]


def test_outlines_of_the_limbs_of_a_figure_are_shells():
    outlines = [hull(limb) for limb in FIGURE]
    assert shells(*FIGURE, *outlines) == list(range(6, 12))
    one = replace(join(*FIGURE), parts=np.zeros(len(join(*FIGURE).faces), dtype=np.int32))
    assert shells(one, *outlines) == list(range(1, 7))
    # Other things beside it do not matter, nor do limbs without an outline.
    ground, box = painted(moved(quad(9), 0, 0, -1.5), DOUBLE), cube(1, (3, 0, 0))
    assert shells(*FIGURE, ground, box, *outlines[:3]) == [8, 9, 10]


def test_outlines_of_thin_parts_are_found_by_their_material():
    """An outline as thick as an arm is filled too little to be found by its shape."""
    body, arm = sphere(), moved(stretched(sphere(0.05), 6, 1, 1), 1.25, 0, 0)
    thick = hull(arm, 0.12)
    assert shells(body, arm, thick) == []
    assert shells(body, arm, hull(body), thick) == [2, 3]
    # A reversed part with a material of its own is no outline.
    assert shells(body, hull(body), painted(reverse(arm), BODY)) == [1]


def test_an_outline_that_touches_its_body_is_a_shell():
    outline = hull(sphere())
    positions = outline.positions.copy()
    positions[5] = sphere().positions[5]
    assert shells(sphere(), replace(outline, positions=positions)) == [1]


def test_double_sided_faces_are_no_shell():
    assert shells(sphere(), painted(hull(sphere()), DOUBLE)) == []


@pytest.mark.parametrize("sky", [sphere(16), cube(32), stretched(sphere(16), 1, 1, 0.3)])
def test_a_sky_around_a_small_object_is_a_shell(sky: Surface):
    thing = cube(2, (1, 0, 0))
    assert shells(reverse(sky), thing) == [0]
    assert shells(painted(thing, DOUBLE), reverse(sky)) == [1]
    assert shells(reverse(sky), reverse(thing)) == [0]


def test_a_sky_a_room_in_it_and_an_outline_are_shells_together():
    room = reverse(cube(8))
    assert shells(reverse(sphere(16)), room, *FIGURE, *map(hull, FIGURE)) == [0, 1, *range(8, 14)]


def test_half_a_sky_is_a_shell():
    sky = reverse(sphere(16))
    upper = sky.positions[sky.faces][..., 2].min(axis=1) > -1
    assert shells(sky.select(upper), cube(2, (0, 0, 1))) == [0]


@pytest.mark.parametrize("walls", [2, 4, 5])
def test_a_room_of_walls_that_share_corners_is_a_shell(walls: int):
    turned = [
        moved(replace(quad(4), positions=quad(4).positions[:, [2, 1, 0]]), 2, 0, 0),
        moved(replace(quad(4), positions=quad(4).positions[:, [0, 2, 1]]), 0, 2, 0),
        moved(reverse(quad(4)), 0, 0, 2),
    ]
    room = [*ROOM, *turned][: walls + 1]
    room = [painted(wall, number % 2) for number, wall in enumerate(room)]
    assert shells(*room, cube(1, (-1, -1, -1.4)), sphere(0.5, (0, 0, -1))) == list(range(walls + 1))


@pytest.mark.parametrize("body", [cube(), sphere(), torus()])
def test_a_reversed_object_is_no_shell(body: Surface):
    assert shells(reverse(body)) == []
    assert shells(reverse(body), cube(1, (4, 0, 0)), sphere(1, (0, 4, 0))) == []
    assert shells(reverse(body), painted(moved(quad(9), 0, 0, -1), DOUBLE)) == []


def test_a_reversed_figure_with_teeth_is_no_shell():
    figure = join(*FIGURE)
    parts = np.zeros(len(figure.faces), dtype=np.int32)
    assert shells(reverse(replace(figure, parts=parts)), cube(0.1, (0, 0, 1))) == []


def test_a_reversed_ring_with_something_in_it_is_no_shell():
    assert shells(reverse(torus(0.4)), sphere(0.3, (1, 0, 0))) == []


def test_a_reversed_body_in_reversed_clothes_is_no_shell():
    assert shells(reverse(torus(0.4)), reverse(torus(0.42))) == []


def cup(radius: float) -> Surface:
    """Return a sphere without its upper part."""
    body = sphere(radius, rings=24)
    return body.select(body.positions[body.faces][..., 2].max(axis=1) < 0.5 * radius)


@pytest.mark.parametrize("thickness", [0.01, 0.1])
def test_the_inside_of_a_mug_is_no_shell(thickness: float):
    coffee = moved(stretched(quad(), 1.2, 1.2, 1), 0, 0, 0.1)
    outside, inside = cup(1), reverse(cup(1 - thickness))
    assert shells(outside, inside, coffee) == []
    assert shells(outside, inside, sphere(0.3)) == []
    # With its inside reversed.
    assert shells(outside, reverse(inside), coffee) == []


def test_the_inside_of_a_car_is_no_shell():
    outside = stretched(cube(), 4, 2, 1.5)
    inside = reverse(stretched(cube(), 3, 1.9, 1.4))
    seats = [cube(0.5, (place, 0, -0.3)) for place in (-1, 0, 1)]
    assert shells(outside, inside, *seats) == []
    # Without a roof one sees the fronts of the inside.
    open_top = [body.select(np.arange(12) < 10) for body in (outside, inside)]
    assert shells(*open_top, *seats) == []


def test_a_bowl_with_fruit_shows_its_inside():
    assert shells(join(cup(1), reverse(cup(0.98))), sphere(0.4, (0, 0, -0.2))) == []


def test_a_tiny_shell_and_empty_surfaces_pass():
    assert shells(cube(100), sphere(0.1, (60, 0, 0)), hull(sphere(0.1, (60, 0, 0)))) == []
    nothing = cube().select(np.zeros(12, dtype=bool))
    assert not inward_shells(nothing, MATERIALS).any()


def test_large_triangles_in_great_number_do_not_exhaust_memory():
    stack = join(*(moved(quad(), 0, 0, number * 1e-3) for number in range(500)))
    scene = join(stack, painted(reverse(sphere(2)), OUTLINE))
    assert inward_shells(scene, MATERIALS).sum() == len(sphere().faces)


@given(
    st.lists(st.floats(0.1, 1), min_size=4, max_size=4),
    st.sampled_from([1e-6, 1.0, 1e6]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=6, deadline=None)
def test_order_and_place_change_nothing_and_once_is_enough(quaternion, scale, seed):
    rng = np.random.default_rng(seed)
    ring = moved(reverse(torus()), 0, 0, -2)
    scene = join(reverse(cube(6)), *FIGURE, *map(hull, FIGURE), ring)
    expected = np.isin(scene.parts, [0, *range(7, 13)])
    assert np.array_equal(inward_shells(scene, MATERIALS), expected)
    assert not inward_shells(scene.select(~expected), MATERIALS).any()
    order = rng.permutation(len(scene.faces))
    turned = replace(
        scene,
        positions=scene.positions @ rotation(quaternion).T * scale + rng.random(3) * scale,
        faces=np.roll(scene.faces, rng.integers(3), axis=1),
    )
    result = inward_shells(reorder(turned, order), MATERIALS)
    assert np.array_equal(result, expected[order])
