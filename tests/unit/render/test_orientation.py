"""Triangles face the side of their normals, and parts the outside where the two contradict."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glb.geometry.surface import Surface
from render.blender.surfaces.orientation import orient
from render.blender.surfaces.triangles import area_vectors
from tests.support.triangle_surfaces import corner_sets, cube, join, quad, reverse, rotation, sphere

BODIES = {"cube": cube(), "sphere": sphere()}


def turn(surface: Surface, mask) -> Surface:
    faces = surface.faces.copy()
    faces[mask] = faces[mask][:, [0, 2, 1]]
    return replace(surface, faces=faces)


def outward(surface: Surface) -> bool:
    """Return whether winding and normals of bodies around the origin face outward."""
    corners = surface.positions[surface.faces]
    winding = (area_vectors(surface) * corners.mean(axis=1)).sum(axis=-1)
    normals = (surface.normals[surface.faces] * corners).sum(axis=-1)
    return bool((winding > 0).all() and (normals > 0).all())


def same(first: Surface, second: Surface) -> bool:
    return bool(
        np.array_equal(corner_sets(first), corner_sets(second))
        and np.array_equal(first.normals, second.normals)
    )


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("share", [0, 0.3, 0.49, 0.7, 1])
def test_triangles_wound_against_outward_normals_are_turned(body: Surface, share: float):
    turned = np.random.default_rng(0).permutation(len(body.faces)) < share * len(body.faces)
    assert same(orient(turn(body, turned)), body)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_inward_normals_are_inverted_if_the_winding_faces_outward(body: Surface):
    assert outward(orient(replace(body, normals=-body.normals)))
    few = np.arange(len(body.faces)) % 4 == 0
    assert outward(orient(turn(replace(body, normals=-body.normals), few)))


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_part_that_faces_inward_consistently_stays_so(body: Surface):
    assert same(orient(reverse(body)), reverse(body))
    few = np.arange(len(body.faces)) % 4 == 0
    assert same(orient(turn(reverse(body), few)), reverse(body))


def test_a_flat_part_keeps_the_front_of_its_winding():
    oriented = orient(replace(quad(), normals=-quad().normals))
    assert same(oriented, quad())
    folded = replace(quad(), positions=quad().positions + [[0, 0, 1e-4], [0, 0, 0]] * 2)
    assert same(orient(replace(folded, normals=-folded.normals)), folded)


def test_parts_are_decided_one_by_one():
    inverted = replace(sphere(), normals=-sphere().normals)
    inward = reverse(sphere())
    wrong = turn(sphere(), slice(None))
    surface = join(cube(), inverted, inward, wrong, sphere())
    right = join(cube(), sphere(), inward, sphere(), sphere())
    assert same(orient(surface), right)


def test_a_normal_behind_its_triangle_is_replaced_there_only():
    body = sphere()
    face, corner = 7, 1
    vertex = body.faces[face, corner]
    normals = body.normals.copy()
    own = area_vectors(body)[face]
    # Behind this triangle, but not on average over its corners.
    normals[vertex] = -0.6 * own / np.linalg.norm(own)
    normals[vertex] += (
        0.8
        * np.cross(own, body.positions[vertex])
        / np.linalg.norm(np.cross(own, body.positions[vertex]))
    )
    oriented = orient(replace(body, normals=normals))
    assert np.array_equal(oriented.positions[oriented.faces], body.positions[body.faces])
    unit = area_vectors(body) / np.linalg.norm(area_vectors(body), axis=1, keepdims=True)
    cosines = np.einsum("fcx,fx->fc", normals[body.faces], unit)
    changed = np.argwhere(cosines < 0)
    assert [face, corner] in changed.tolist()
    result = oriented.normals[oriented.faces]
    expected = normals[body.faces]
    for number, place in changed:
        expected[number, place] = unit[number]
    assert np.allclose(result, expected, atol=1e-6)
    assert len(oriented.positions) == len(body.positions) + len(changed)


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_normals_without_a_direction_decide_nothing(value: float):
    normals = np.full_like(cube().normals, value)
    oriented = orient(turn(replace(cube(), normals=normals), [0, 3]))
    assert np.array_equal(oriented.faces, turn(cube(), [0, 3]).faces)
    assert not oriented.normals.any()
    # Beside others they follow the part.
    one = cube().normals.copy()
    one[:4] = value
    assert outward_winding(orient(turn(replace(cube(), normals=one), slice(None))))


def outward_winding(surface: Surface) -> bool:
    middles = surface.positions[surface.faces].mean(axis=1)
    return bool(((area_vectors(surface) * middles).sum(axis=-1) > 0).all())


def test_faces_without_area_and_empty_surfaces_pass():
    empty = quad().select(np.zeros(2, dtype=bool))
    assert len(orient(empty).faces) == 0
    collapsed = replace(quad(), positions=np.zeros((4, 3)))
    assert np.array_equal(orient(collapsed).faces, quad().faces)


@given(
    st.lists(st.floats(0.1, 1), min_size=4, max_size=4),
    st.sampled_from([1e-6, 1.0, 1e6]),
    st.sampled_from([-1, 1]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_order_and_place_change_nothing_and_once_is_enough(numbers, scale, side, seed):
    rng = np.random.default_rng(seed)
    body = join(cube(), sphere(rings=5), quad())
    body = turn(body, rng.random(len(body.faces)) < rng.random())
    body = replace(body, normals=body.normals * np.float32(side))
    expected = orient(body)
    assert same(orient(expected), expected)
    matrix = rotation(numbers)
    order = rng.permutation(len(body.faces))
    moved = replace(
        body,
        positions=body.positions @ matrix.T * scale + rng.random(3) * scale,
        normals=body.normals @ matrix.T.astype(np.float32),
        faces=np.roll(body.faces, rng.integers(3), axis=1)[order],
        parts=body.parts[order],
    )
    result = orient(moved)
    back = replace(expected, positions=expected.positions @ matrix.T * scale)
    one, other = area_vectors(result), area_vectors(back)[order]
    assert np.allclose(one, other, atol=1e-6 * scale**2)
    normals = expected.normals[expected.faces][order].sum(axis=1) @ matrix.T
    assert np.allclose(result.normals[result.faces].sum(axis=1), normals, atol=1e-5)
