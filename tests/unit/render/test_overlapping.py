"""Triangles of one plane that overlap in part lie in the order in which they are drawn."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glb.geometry.surface import Surface
from render.blender.surfaces.overlapping import separate_overlapping
from render.blender.surfaces.triangles import centroids
from tests.support.triangle_surfaces import (
    cube,
    join,
    material,
    quad,
    reorder,
    reverse,
    rotation,
    sphere,
    surface_of,
)

RED, BLUE, MASK, BLEND, TEXTURED, DOUBLE = range(6)
MATERIALS = {
    RED: material(),
    BLUE: material(),
    MASK: material(alphaMode="MASK"),
    BLEND: material(alphaMode="BLEND"),
    DOUBLE: material(doubleSided=True),
    TEXTURED: material(pbrMetallicRoughness={"baseColorTexture": {"index": 0}}),
}
STEP = 3e-5


def painted(surface: Surface, number: int) -> Surface:
    return replace(surface, materials=np.full(len(surface.faces), number, dtype=np.int32))


def moved_by(surface: Surface, offset: tuple[float, float, float]) -> Surface:
    return replace(surface, positions=surface.positions + offset)


def polygon(corners: int, apex: int) -> Surface:
    """Return a regular polygon that faces +z, divided from a corner."""
    angles = 2 * np.pi * (np.arange(corners) + apex) / corners
    points = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1) / 2
    return surface_of(points, [[0, k, k + 1] for k in range(1, corners - 1)])


def heights(surface: Surface) -> dict[int, list[float]]:
    """Return the heights of the faces of each material in the plane z = 0, in steps and sizes."""
    low, high = surface.positions.min(axis=0), surface.positions.max(axis=0)
    steps = np.round(centroids(surface)[:, 2] / STEP / (high - low).max(), 2)
    numbers = np.unique(surface.materials)
    return {int(number): sorted({*steps[surface.materials == number]}) for number in numbers}


@pytest.mark.parametrize("order", [(RED, BLUE), (RED, MASK), (MASK, RED), (BLEND, MASK)])
def test_a_decal_lies_over_the_wall_if_it_is_drawn_later(order: tuple[int, int]):
    wall, decal = quad(2), moved_by(quad(0.7), (0.1, 0.2, 0))
    result = separate_overlapping(
        join(*(painted(item, number) for item, number in zip((wall, decal), order, strict=True))),
        MATERIALS,
    )
    first, last = sorted(order)
    low, high = heights(result)[first], heights(result)[last]
    assert low[-1] == 0
    assert high[0] == 1


def test_layers_of_a_body_lie_outside_it():
    decal = painted(moved_by(quad(0.3), (0.1, 0, 0.5)), BLUE)
    below = replace(decal, positions=decal.positions * (1, -1, -1))
    result = separate_overlapping(join(painted(cube(), RED), decal, below), MATERIALS)
    z = np.abs(centroids(result.select(result.materials == BLUE))[:, 2])
    np.testing.assert_allclose(z, 0.5 + STEP, atol=1e-9)


@pytest.mark.parametrize("double", [False, True])
def test_a_double_sided_decal_may_be_wound_against_a_single_sided_wall(double: bool):
    """With a double-sided wall it is a card with two looks, and each has its own side."""
    decal = reverse(moved_by(quad(0.7), (0.1, 0.2, 0)))
    surface = join(painted(quad(2), RED), painted(decal, DOUBLE))
    result = separate_overlapping(surface, MATERIALS | {RED: material(doubleSided=double)})
    assert heights(result) == ({RED: [0.5], DOUBLE: [-0.5]} if double else {RED: [0], DOUBLE: [1]})


def test_each_decal_on_others_is_a_layer():
    """Of the same texture, too: it may be an atlas."""
    sizes = (2, 1.5, 1, 0.5)
    result = separate_overlapping(
        join(*(painted(moved_by(quad(size), (size / 9, 0, 0)), TEXTURED) for size in sizes)),
        MATERIALS,
    )
    np.testing.assert_allclose(heights(result)[TEXTURED], [0, 1, 2, 3], atol=0.01)


def test_many_layers_lie_closer():
    quads = [painted(moved_by(quad(), (k / 90, 0, 0)), TEXTURED) for k in range(40)]
    result = separate_overlapping(join(*quads), MATERIALS)
    assert len(np.unique(np.round(centroids(result)[:, 2], 9))) == 40
    assert np.ptp(centroids(result)[:, 2]) < 5e-4


@pytest.mark.parametrize("other", [moved_by(quad(), (0.3, 0.2, 0)), polygon(7, 3)])
def test_each_side_of_a_card_is_seen_from_its_side(other: Surface):
    front = quad() if len(other.faces) == 2 else polygon(7, 0)
    result = separate_overlapping(
        join(painted(front, RED), painted(reverse(other), BLUE)), MATERIALS
    )
    assert heights(result)[RED][-1] == 0.5
    assert heights(result)[BLUE][0] == -0.5


@pytest.mark.parametrize(
    "surface",
    [
        sphere(),
        cube(),
        join(painted(quad(), RED), painted(moved_by(quad(), (1, 0, 0)), BLUE)),
        join(painted(quad(), RED), painted(moved_by(quad(), (1.5, 0, 0)), BLUE)),
        join(painted(quad(), RED), painted(moved_by(quad(), (0.3, 0.2, 0)), RED)),
        join(painted(quad(), RED), painted(moved_by(quad(), (0.3, 0.2, 1e-5)), BLUE)),
        join(painted(quad(), RED), painted(moved_by(quad(1e-3), (0.3, 0.2, 0)), BLUE)),
    ],
    ids=["sphere", "cube", "neighbours", "apart", "one look", "another plane", "a pixel"],
)
def test_what_does_not_need_layers_stays(surface: Surface):
    assert separate_overlapping(surface, MATERIALS) is surface


def test_no_triangle_is_no_error():
    nothing = quad().select(np.zeros(2, dtype=bool))
    assert separate_overlapping(nothing, MATERIALS) is nothing


def test_a_finely_divided_plane_takes_no_quadratic_time():
    """Every pair of its 45,000 triangles would be a billion tests."""
    side = np.arange(151)
    x, y = np.meshgrid(side, side, indexing="ij")
    first = (side[:-1, None] * 151 + side[None, :-1]).ravel()
    faces = np.concatenate([first[:, None] + [0, 151, 152], first[:, None] + [0, 152, 1]])
    plane = surface_of(np.stack([x - 75, y - 75, 0 * x], axis=-1).reshape(-1, 3) / 150, faces)
    decal = painted(quad(0.1), BLUE)
    result = separate_overlapping(join(painted(plane, TEXTURED), decal), MATERIALS)
    assert heights(result) == {TEXTURED: [0], BLUE: [1]}


@given(
    st.lists(st.floats(0.1, 1), min_size=4, max_size=4),
    st.sampled_from([1e-6, 1.0, 1e6]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_order_and_place_change_nothing(quaternion: list[float], scale: float, seed: int):
    rng = np.random.default_rng(seed)
    cards = [moved_by(polygon(6, 1), (*rng.uniform(-0.3, 0.3, 2), 0)) for _ in range(4)]
    sides = [reverse(card) if rng.random() < 0.5 else card for card in cards]
    surface = join(*(painted(item, number) for number, item in enumerate(sides)))
    turn, offset = rotation(quaternion), rng.random(3) * scale
    placed = replace(surface, positions=surface.positions @ turn.T * scale + offset)
    order = rng.permutation(len(surface.faces))
    result = separate_overlapping(reorder(placed, order), MATERIALS)
    heights = ((centroids(result) - offset) @ turn)[:, 2] / scale
    again = separate_overlapping(placed, MATERIALS)
    expected = ((centroids(again) - offset) @ turn)[order, 2] / scale
    np.testing.assert_allclose(heights, expected, atol=1e-9)
