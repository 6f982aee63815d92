"""Of triangles at one place those that a depth-tested renderer shows are kept, set apart."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glb.geometry.surface import Surface
from render.blender.surfaces.coincident import separate_coincident
from render.blender.surfaces.triangles import area_vectors, centroids
from tests.support.triangle_surfaces import (
    corner_sets,
    cube,
    join,
    material,
    quad,
    reorder,
    reverse,
    rotation,
    sphere,
    surface_of,
    torus,
)

RED, BLUE, MASK, BLEND, OTHER_BLEND = range(5)
MATERIALS = {
    RED: material(name="red", pbrMetallicRoughness={"baseColorFactor": [1, 0, 0, 1]}),
    BLUE: material(name="blue", pbrMetallicRoughness={"baseColorFactor": [0, 0, 1, 1]}),
    MASK: material(name="mask", alphaMode="MASK"),
    BLEND: material(name="blend", alphaMode="BLEND"),
    OTHER_BLEND: material(name="other", alphaMode="BLEND", alphaCutoff=0.1),
}


def painted(surface: Surface, number: int) -> Surface:
    return replace(surface, materials=np.full(len(surface.faces), number, dtype=np.int32))


def layers(surface: Surface) -> list[tuple[int, float]]:
    """Return the material and the height in units of 1e-4 of each pair of triangles of quads."""
    heights = centroids(surface)[:, 2] * 1e4
    front = np.sign(area_vectors(surface)[:, 2])
    rows = zip(surface.materials.tolist(), np.round(heights, 2).tolist(), front, strict=True)
    return sorted({(number, height) for number, height, _ in rows}, key=lambda row: row[1])


def test_a_surface_without_coincident_triangles_is_returned_as_it_is():
    surface = join(cube(), sphere(), painted(quad(5), BLUE))
    assert separate_coincident(surface, MATERIALS) is surface
    empty = quad().select(np.zeros(2, dtype=bool))
    assert len(separate_coincident(empty, MATERIALS).faces) == 0


@pytest.mark.parametrize("body", [cube(), sphere(), quad()], ids=["cube", "sphere", "quad"])
@pytest.mark.parametrize("copies", [2, 5])
def test_one_of_copies_that_look_the_same_is_kept(body: Surface, copies: int):
    result = separate_coincident(join(*[body] * copies), MATERIALS)
    assert np.array_equal(corner_sets(result), corner_sets(body))
    assert not result.parts.any()


@pytest.mark.parametrize("offset", [0, 1, 1000])
def test_copies_are_found_despite_rounding(offset: float):
    body = sphere(rings=20)
    rng = np.random.default_rng(0)
    noise = rng.uniform(-1, 1, body.positions.shape) * 2e-7
    copy = replace(body, positions=body.positions + noise)
    result = separate_coincident(
        join(*(replace(item, positions=item.positions + offset) for item in (body, copy))),
        MATERIALS,
    )
    assert len(result.faces) == len(body.faces)


def test_bodies_that_are_further_apart_than_a_few_roundings_are_not_coincident():
    body = sphere()
    moved = replace(body, positions=body.positions * (1 + 4e-5))
    surface = join(body, moved)
    assert separate_coincident(surface, MATERIALS) is surface


def test_a_different_name_is_no_different_look():
    materials = MATERIALS | {-1: MATERIALS[RED] | {"name": "copy"}}
    result = separate_coincident(join(painted(quad(), -1), quad()), materials)
    assert result.materials.tolist() == [-1, -1]


@pytest.mark.parametrize("body", [cube(), sphere()], ids=["cube", "sphere"])
@pytest.mark.parametrize("inward_first", [False, True])
def test_a_closed_body_given_both_ways_faces_outward(body: Surface, inward_first: bool):
    both = [body, reverse(body)]
    result = separate_coincident(join(*both[:: -1 if inward_first else 1]), MATERIALS)
    assert np.array_equal(corner_sets(result), corner_sets(body))
    middles = centroids(result)
    assert (np.einsum("fcx,fx->fc", result.normals[result.faces], middles) > 0).all()


def test_it_faces_outward_in_any_order_of_its_triangles():
    both = join(sphere(rings=8), reverse(sphere(rings=8)))
    mixed = replace(both, parts=np.zeros_like(both.parts))
    order = np.random.default_rng(0).permutation(len(mixed.faces))
    result = separate_coincident(reorder(mixed, order), MATERIALS)
    assert np.array_equal(corner_sets(result), corner_sets(sphere(rings=8)))


def test_outward_is_not_away_from_the_centre():
    """The inside of a torus's ring faces its centre."""
    body = torus()
    both = join(reverse(body), body)
    order = np.random.default_rng(1).permutation(len(both.faces))
    mixed = replace(both, parts=np.zeros_like(both.parts))
    result = separate_coincident(reorder(mixed, order), MATERIALS)
    assert np.array_equal(corner_sets(result), corner_sets(body))


def test_a_card_given_both_ways_keeps_its_first_side():
    for first, second in ((quad(), reverse(quad())), (reverse(quad()), quad())):
        result = separate_coincident(join(first, second), MATERIALS)
        assert np.array_equal(corner_sets(result), corner_sets(first))


def test_a_strip_with_one_side_only_keeps_its_first_triangles():
    count = 20
    turn = np.pi * np.arange(count) / count
    rim = np.stack([np.cos(2 * turn), np.sin(2 * turn), 0 * turn], axis=-1)
    across = rim * np.cos(turn)[:, None] + np.outer(np.sin(turn), [0, 0, 1])
    points = np.stack([rim - 0.3 * across, rim + 0.3 * across], axis=1).reshape(-1, 3)
    left, right = np.arange(0, 2 * count, 2), np.arange(1, 2 * count, 2)
    next_left, next_right = np.roll(left, -1), np.roll(right, -1)
    next_left[-1], next_right[-1] = right[0], left[0]
    faces = np.concatenate(
        [np.stack([left, right, next_right], 1), np.stack([left, next_right, next_left], 1)]
    )
    strip = surface_of(points, faces)
    result = separate_coincident(join(strip, reverse(strip)), MATERIALS)
    assert np.array_equal(corner_sets(result), corner_sets(strip))


@pytest.mark.parametrize("last", [RED, BLUE])
def test_the_last_of_opaque_triangles_hides_the_others(last: int):
    surface = join(*(painted(quad(), number) for number in (last, 1 - last, last)))
    assert layers(separate_coincident(surface, MATERIALS)) == [(last, 0)]


def test_texture_coordinates_and_colours_are_looks():
    textured = {0: material(pbrMetallicRoughness={"baseColorTexture": {"index": 0}})}
    moved = replace(quad(), uvs={0: quad().uvs[0] + np.float32(0.25)})
    colour = np.tile(np.float32([0.5, 0.5, 0.5, 1]), (4, 1))
    for other, materials in ((moved, textured), (replace(quad(), colours=colour), MATERIALS)):
        result = separate_coincident(join(quad(), other), materials)
        assert result.parts.tolist() == [1, 1]
    # A material without textures looks the same with any coordinates, an opaque one with any alpha.
    clear = replace(quad(), colours=np.tile(np.float32([1, 1, 1, 0.5]), (4, 1)))
    for other in (moved, clear):
        assert separate_coincident(join(quad(), other), MATERIALS).parts.tolist() == [0, 0]
    blended = join(painted(quad(), BLEND), painted(clear, BLEND))
    assert len(separate_coincident(blended, MATERIALS).faces) == 4


def test_transparent_triangles_are_layers_over_the_last_opaque_one():
    order = (BLEND, RED, OTHER_BLEND, MASK, BLUE, BLEND)
    surface = join(*(painted(quad(), number) for number in order))
    result = separate_coincident(surface, MATERIALS)
    assert layers(result) == [(BLUE, 0), (MASK, 1), (BLEND, 2), (OTHER_BLEND, 3)]
    assert np.array_equal(np.abs(result.positions[result.faces][..., :2]), np.full((8, 3, 2), 0.5))


def test_without_an_opaque_triangle_the_first_layer_stays():
    surface = join(painted(quad(), BLEND), painted(quad(), MASK))
    assert layers(separate_coincident(surface, MATERIALS)) == [(MASK, 0), (BLEND, 1)]


def test_a_card_with_two_looks_has_both_each_on_its_side():
    surface = join(painted(quad(), RED), painted(reverse(quad()), BLUE))
    result = separate_coincident(surface, MATERIALS)
    assert layers(result) == [(BLUE, -0.5), (RED, 0.5)]
    front = area_vectors(result)[:, 2] > 0
    assert (front == (result.materials == RED)).all()


def test_each_side_of_a_card_has_its_own_layers():
    front = [painted(quad(), number) for number in (RED, BLUE, BLEND)]
    back = [painted(reverse(quad()), number) for number in (RED, MASK)]
    result = separate_coincident(join(*front, *back), MATERIALS)
    assert layers(result) == [(MASK, -1.5), (RED, -0.5), (BLUE, 0.5), (BLEND, 1.5)]


def test_many_layers_lie_closer():
    materials = {n: material(alphaMode="BLEND", alphaCutoff=n / 100) for n in range(40)}
    surface = join(*(painted(quad(), number) for number in range(40)))
    result = layers(separate_coincident(surface, materials))
    assert [number for number, _ in result] == list(range(40))
    heights = np.array([height for _, height in result])
    assert np.allclose(np.diff(heights), 0.25, atol=0.02)


def test_layers_of_a_body_lie_outside_it_and_only_they_move():
    body = sphere()
    decal = painted(body, BLEND).select(np.arange(len(body.faces)) < 40)
    result = separate_coincident(join(body, decal), MATERIALS)
    assert len(result.faces) == len(body.faces) + 40
    base = result.materials == RED
    assert np.array_equal(corner_sets(result.select(base)), corner_sets(body))
    moved = result.select(~base)
    shift = moved.positions[moved.faces] - decal.positions[decal.faces]
    assert np.allclose(np.linalg.norm(shift, axis=-1), 2e-4)
    assert (np.einsum("fcx,fx->fc", shift, centroids(moved)) > 0).all()


def test_tiny_triangles_at_one_point_are_kept():
    tiny = replace(sphere(), positions=sphere().positions * 1e-8)
    surface = join(cube(), tiny)
    assert separate_coincident(surface, MATERIALS) is surface


@given(
    st.lists(st.floats(0.1, 1), min_size=4, max_size=4),
    st.sampled_from([1e-6, 1.0, 1e6]),
    st.lists(st.integers(0, 4), min_size=2, max_size=5),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_order_and_place_change_nothing_and_once_is_enough(quaternion, scale, numbers, seed):
    rng = np.random.default_rng(seed)
    bodies = [cube(), sphere(rings=5), quad(4)]
    copies = [painted(bodies[rng.integers(3)], number) for number in numbers]
    surface = join(*(reverse(item) if rng.random() < 0.5 else item for item in copies))
    expected = separate_coincident(surface, MATERIALS)
    again = separate_coincident(expected, MATERIALS)
    assert np.array_equal(corner_sets(again), corner_sets(expected))
    # Parts keep the order of drawing; their triangles and corners may come in any order.
    order = rng.permutation(len(surface.faces))
    turned = replace(
        surface,
        positions=surface.positions @ rotation(quaternion).T * scale + rng.random(3) * scale,
        faces=np.roll(surface.faces, rng.integers(3), axis=1),
    )
    result = separate_coincident(reorder(turned, order), MATERIALS)
    assert len(result.faces) == len(expected.faces)
    for values in (lambda item: item.materials, lambda item: item.parts):
        assert np.array_equal(np.sort(values(result)), np.sort(values(expected)))
    vectors = area_vectors(expected) @ rotation(quaternion).T
    apart = np.linalg.norm(area_vectors(result)[:, None] / scale**2 - vectors, axis=-1)
    assert apart.min(axis=0).max(initial=0) < 1e-6
    assert apart.min(axis=1).max(initial=0) < 1e-6


def crossed(surface: Surface) -> Surface:
    """Return quads whose triangles come in pairs, divided along the other diagonal."""
    first, second = surface.faces[0::2], surface.faces[1::2]
    faces = np.empty_like(surface.faces)
    faces[0::2] = np.stack([first[:, 0], first[:, 1], second[:, 2]], axis=1)
    faces[1::2] = np.stack([first[:, 1], first[:, 2], second[:, 2]], axis=1)
    return replace(surface, faces=faces)


def area(surface: Surface) -> float:
    return float(np.linalg.norm(area_vectors(surface), axis=1).sum() / 2)


def test_quads_with_crossed_diagonals_are_coincident():
    body = cube()
    for other in (crossed(body), reverse(crossed(body))):
        result = separate_coincident(join(other, body), MATERIALS)
        assert len(result.faces) == 12
        assert (np.einsum("ij,ij->i", area_vectors(result), centroids(result)) > 0).all()
    card = join(painted(quad(), RED), painted(reverse(crossed(quad())), BLUE))
    assert layers(separate_coincident(card, MATERIALS)) == [(BLUE, -0.5), (RED, 0.5)]


def test_a_divided_plane_with_crossed_diagonals_is_coincident():
    plane = replace(
        join(
            *(
                replace(quad(), positions=quad().positions + np.array([x, y, 0]))
                for x in range(4)
                for y in range(3)
            )
        ),
        parts=np.zeros(24, dtype=np.int32),
    )
    result = separate_coincident(join(plane, painted(crossed(plane), BLUE)), MATERIALS)
    assert layers(result) == [(BLUE, 0)]
    assert np.isclose(area(result), 12)
    order = np.random.default_rng(0).permutation(48)
    both = join(plane, painted(reverse(crossed(plane)), BLUE))
    result = separate_coincident(reorder(both, order), MATERIALS)
    # The plane is 4 wide.
    assert layers(result) == [(BLUE, -2), (RED, 2)]
    assert np.isclose(area(result), 24)


def test_quads_stay_divided_as_they_are_if_nothing_is_over_them_or_the_texture_has_a_seam():
    surface = crossed(cube())
    assert separate_coincident(surface, MATERIALS) is surface
    torn = crossed(quad())
    corners = torn.faces.ravel()
    torn = replace(
        torn,
        positions=torn.positions[corners],
        normals=torn.normals[corners],
        uvs={0: torn.uvs[0][corners] + np.float32([[0.5]] * 3 + [[0]] * 3)},
        faces=np.arange(6, dtype=np.int32).reshape(2, 3),
    )
    result = separate_coincident(join(torn, quad()), MATERIALS)
    assert len(result.faces) == 4
