"""Triangles that draw nothing are found: no area, or no opacity; and no other."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glb.shown_materials import GLOSSY
from render.blender.surfaces.alpha_texture import AlphaTexture
from render.blender.surfaces.drawn import drawn_faces
from tests.support.triangle_surfaces import cube, join, material, quad, sphere, surface_of

OPAQUE = [material()]


def drawn(surface, materials=OPAQUE, **textures) -> list[bool]:
    return drawn_faces(surface, dict(enumerate(materials)), textures.get("textures", {})).tolist()


def triangle(*corners):
    return surface_of(corners, [[0, 1, 2]])


@pytest.mark.parametrize(
    "corners",
    [
        [(20, 0, 0), (20, 0, 0), (20, 0, 0)],
        [(0, 0, 0), (1, 2, 3), (1, 2, 3)],
        [(1, 2, 3), (0, 0, 0), (1, 2, 3)],
        [(0, 0, 0), (0.1, 0.2, 0.3), (0.2, 0.4, 0.6)],
        [(0.1, 0.3, 0.7), (0.2, 0.6, 1.4), (0.15, 0.45, 1.05 + 6e-8)],
        [(0, 0, 0), (1, 0, 0), (0.5, 9e-7, 0)],
        [(1e6, 0, 0), (1e6 + 1e-9, 0, 0), (1e6, 1e-9, 0)],
        [(1e-200, 0, 0), (2e-200, 0, 0), (3e-200, 0, 0)],
    ],
    ids="point repeated-last repeated-ends line rounded-line needle far-speck tiny-line".split(),
)
def test_a_triangle_without_area_is_not_drawn(corners: list[tuple[float, float, float]]):
    for shift in range(3):
        assert drawn(triangle(*np.roll(corners, shift, axis=0))) == [False]


@pytest.mark.parametrize(
    "corners",
    [
        [(0, 0, 0), (1, 0, 0), (0.5, 2e-6, 0)],
        [(4e6, 0, 0), (4e6 + 1e-3, 0, 0), (4e6, 1e-3, 0)],
        [(0, 0, 0), (1e-200, 0, 0), (0, 1e-200, 0)],
        [(0, 0, 0), (1e200, 0, 0), (0, 1e200, 0)],
    ],
    ids=["thin", "far", "tiny", "huge"],
)
def test_a_triangle_with_area_is_drawn_wherever_it_is(corners: list[tuple[float, float, float]]):
    assert drawn(triangle(*corners)) == [True]


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=9, max_size=9),
    st.sampled_from([1e-9, 1e-3, 1.0, 1024.0, 2.0**80]),
    st.permutations(range(3)),
)
@settings(max_examples=200, deadline=None)
def test_scale_and_the_order_of_corners_change_nothing(numbers, scale, order):
    corners = np.array(numbers).reshape(3, 3)
    base = np.linalg.norm(np.cross(corners[1] - corners[0], corners[2] - corners[0]))
    longest = max(np.linalg.norm(corners[one] - corners[one - 1]) for one in range(3))
    # Heights next to the limits are decided by rounding.
    height = base / max(longest, 1e-300)
    limits = [1e-6 * longest, 8 * np.finfo(float).eps * np.abs(corners).max()]
    if any(0.5 * limit < height < 2 * limit for limit in limits):
        return
    assert drawn(triangle(*corners)) == drawn(triangle(*corners[list(order)] * scale))


MASK, BLEND = {"alphaMode": "MASK"}, {"alphaMode": "BLEND"}


def factor(alpha: float) -> dict:
    return {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, alpha]}}


def glossy(alpha: float) -> dict:
    return {"extensions": {GLOSSY: {"diffuseFactor": [1, 1, 1, alpha]}}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (factor(0), True),
        ({"alphaMode": "OPAQUE"} | factor(0), True),
        (BLEND, True),
        (BLEND | factor(0), False),
        (BLEND | factor(0.001), False),
        (BLEND | factor(0.01), True),
        (BLEND | glossy(0), False),
        (BLEND | glossy(0.5), True),
        (MASK, True),
        (MASK | factor(0.49), False),
        (MASK | factor(0.5), True),
        (MASK | factor(0.3) | {"alphaCutoff": 0.2}, True),
        (MASK | glossy(0.3) | {"alphaCutoff": 0.4}, False),
        (MASK | factor(0) | {"alphaCutoff": 0}, True),
        (MASK | {"alphaCutoff": 1.01}, False),
    ],
)
def test_the_factor_decides_with_the_mode(fields: dict, expected: bool):
    assert drawn(quad(), [material(**fields)]) == [expected, expected]


def test_the_largest_alpha_of_the_corners_counts_and_materials_do_not_mix():
    transparent, part = np.ones((4, 4)), np.ones((4, 4))
    transparent[:, 3], part[:, 3] = 0, (0, 0.6, 0, 0)
    surface = join(*(replace(quad(), colours=c.astype(np.float32)) for c in (transparent, part)))
    blend = [material(**BLEND)]
    assert drawn(surface, blend) == [False, False, True, False]
    assert drawn(surface, [material(**MASK)]) == [False, False, True, False]
    assert drawn(surface, [material(**MASK, **factor(0.8))]) == [False] * 4
    assert drawn(surface, OPAQUE) == [True] * 4
    mixed = replace(surface, materials=np.array([0, 1, 0, 1], dtype=np.int32))
    assert drawn(mixed, blend + OPAQUE) == [False, True, True, True]


def test_a_card_in_a_transparent_region_of_an_atlas_is_not_drawn():
    alpha = np.zeros((64, 64), dtype=np.uint8)
    alpha[:, 32:] = 255
    textured = BLEND | {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    textures = {0: AlphaTexture(alpha=alpha)}
    left = replace(quad(), uvs={0: quad().uvs[0] * np.float32([0.45, 0.9]) + np.float32(0.02)})
    for surface, expected in ((left, False), (quad(), True)):
        assert drawn(surface, [material(**textured)], textures=textures) == [expected] * 2
    # Without the image any alpha is possible; OPAQUE ignores it.
    assert drawn(left, [material(**textured)]) == [True, True]
    opaque = [material(**textured | {"alphaMode": "OPAQUE"})]
    assert drawn(left, opaque, textures=textures) == [True, True]


def test_the_factor_scales_the_alpha_that_a_mask_needs():
    textures = {0: AlphaTexture(alpha=np.full((4, 4), 153, dtype=np.uint8))}
    for alpha, expected in ((1, True), (0.84, True), (0.82, False)):
        colour = {"baseColorFactor": [1, 1, 1, alpha], "baseColorTexture": {"index": 0}}
        fields = MASK | {"pbrMetallicRoughness": colour}
        assert drawn(quad(), [material(**fields)], textures=textures) == [expected] * 2


def test_bodies_are_drawn_wholly_and_what_is_drawn_stays_so():
    surface = join(cube(), sphere(), triangle((9, 9, 9), (9, 9, 9), (8, 9, 9)))
    mask = drawn_faces(surface, {0: material()}, {})
    assert mask.tolist() == [True] * (len(mask) - 1) + [False]
    assert drawn_faces(surface.select(mask), {0: material()}, {}).all()


def test_a_factor_of_integers_is_a_number_like_any_other():
    colours = np.array([[1, 1, 1, 0.25]] * 4, dtype=np.float32)
    blended = material(alphaMode="BLEND", pbrMetallicRoughness={"baseColorFactor": [1, 1, 1, 1]})
    assert drawn(replace(quad(), colours=colours), [blended]) == [True] * 2
