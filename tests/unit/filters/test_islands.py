"""Islands of a surface: shapes that are clearly one object, clearly several, or uncertain."""

import functools
import json

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.islands import measure_islands
from filters.shape import MultiObjectConfig
from tests.support.facts import count_objects

NUM_POINTS = 60_000


def box(size, at=(0, 0, 0)) -> trimesh.Trimesh:
    return trimesh.creation.box(extents=size).apply_translation(at)


def ball(radius: float, at=(0, 0, 0), scale=(1, 1, 1)) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    return mesh.apply_scale(scale).apply_translation(at)


def ring(radius: float, tube: float, at=(0, 0, 0), upright: bool = False) -> trimesh.Trimesh:
    mesh = trimesh.creation.torus(radius, tube)
    if upright:
        mesh.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    return mesh.apply_translation(at)


def pole(radius: float, height: float, at=(0, 0, 0)) -> trimesh.Trimesh:
    return trimesh.creation.cylinder(radius, height).apply_translation(at)


def strap(x: float) -> list[trimesh.Trimesh]:
    """Return the parts of a strap of a sandal."""
    sides = [box((0.3, 0.04, 0.3), (x, y, 0.2)) for y in (-0.35, 0.35)]
    return [*sides, box((0.3, 0.74, 0.04), (x, 0, 0.35))]


def surface(parts, seed: int = 0) -> np.ndarray:
    mesh = trimesh.util.concatenate(parts)
    low, high = mesh.bounds
    points, _ = trimesh.sample.sample_surface(mesh, NUM_POINTS, seed=seed)
    return ((points - (low + high) / 2) * (2 / (high - low).max())).astype(np.float32)


def four(part, x: float, y: float) -> list[trimesh.Trimesh]:
    return [part((i * x, j * y)) for i in (-1, 1) for j in (-1, 1)]


ONE = {
    "cube": [box((1, 1, 1))],
    "sheet": [box((1, 1, 0.0001))],
    "upright sheet": [box((1, 0.0001, 1))],
    "table": [
        box((2, 1, 0.1), (0, 0, 1)),
        *four(lambda p: box((0.1, 0.1, 1), (*p, 0.5)), 0.9, 0.4),
    ],
    "table turned over": [
        box((2, 1, 0.1)),
        *four(lambda p: box((0.1, 0.1, 1), (*p, 0.5)), 0.9, 0.4),
        box((2, 0.1, 0.1), (0, 0, 0.9)),
        *[box((0.1, 1, 0.1), (x, 0, 0.9)) for x in (-0.9, 0.9)],
    ],
    "statue on a plinth": [box((1, 1, 0.1)), ball(0.3, (0, 0, 1), (1, 1, 3))],
    "shelf": [box((1, 0.4, 0.05), (0, 0, z)) for z in (0, 0.5, 1, 1.5)]
    + [box((0.05, 0.4, 1.55), (x, 0, 0.75)) for x in (-0.5, 0.5)],
    "crumbs around it": [ball(1), *four(lambda p: ball(0.05, (*p, 0)), 1.1, 1.1)],
}
ONE_OR_UNCERTAIN = {
    "planet with a ring": [ball(1), ring(1.8, 0.2)],
    "ball in a ball": [ball(1), ball(0.5)],
    "lamp with a loose shade": [pole(0.1, 1), box((0.8, 0.8, 0.5), (0, 0, 1))],
    "bicycle with loose wheels": [
        ring(0.5, 0.05, (-0.8, 0, 0), upright=True),
        ring(0.5, 0.05, (0.8, 0, 0), upright=True),
        box((1.4, 0.05, 0.05), (0, 0.2, 0.3)),
        box((1.4, 0.05, 0.05), (0, -0.2, 0.3)),
        box((0.05, 0.4, 0.05), (0, 0, 0.3)),
    ],
    "car with loose wheels": [
        box((2, 1, 0.5), (0, 0, 0.6)),
        *four(lambda p: ring(0.2, 0.06, (*p, 0), upright=True), 0.7, 0.4),
    ],
    "sandal": [box((2, 0.8, 0.1)), *strap(-0.6), *strap(0.6)],
    "keyboard": [
        box((3, 1, 0.05)),
        *[
            box((0.2, 0.2, 0.06), (0.3 * i, 0.3 * j, 0.05))
            for i in range(-4, 5)
            for j in range(-1, 2)
        ],
    ],
}
SEVERAL = {
    "pair of shoes": [ball(0.3, (0, y, 0), (2.5, 1, 1)) for y in (-0.4, 0.4)],
    "tea set": [
        ball(0.5),
        ball(0.2, (0.9, 0.3, -0.3)),
        ball(0.2, (0.8, -0.5, -0.3)),
        ball(0.25, (-0.9, 0, -0.25)),
    ],
    "five boxes": [box((1, 1, 1), (1.5 * i, 0, 0)) for i in range(5)],
    "row of cards": [box((1, 0.001, 1), (1.07 * i, 0, 0)) for i in range(2)],
    "small things on a wide ground": [
        box((4, 4, 0.02)),
        *four(lambda p: ball(0.3, (*p, 0.3)), 1.2, 1.2),
        box((0.5, 0.5, 0.5), (0, 0, 0.25)),
    ],
    "garden": [
        box((4, 4, 0.3)),
        box((1, 1, 1), (-1, -1, 0.6)),
        *[pole(0.08, 1, (1, y, 0.6)) for y in (-1, 1)],
        *[ball(0.4, (1, y, 1.3)) for y in (-1, 1)],
    ],
}


@functools.cache
def answer(kind: str, name: str) -> str:
    shapes = {"one": ONE, "one or uncertain": ONE_OR_UNCERTAIN, "several": SEVERAL}[kind]
    return count_objects(measure_islands(surface(shapes[name])), MultiObjectConfig())[0]


@pytest.mark.parametrize("name", ONE)
def test_one_object_is_recognised(name: str) -> None:
    assert answer("one", name) == "one"


@pytest.mark.parametrize("name", ONE_OR_UNCERTAIN)
def test_loose_parts_are_not_several_objects(name: str) -> None:
    assert answer("one or uncertain", name) != "several"


@pytest.mark.parametrize("name", SEVERAL)
def test_several_objects_are_recognised(name: str) -> None:
    assert answer("several", name) == "several"


@settings(deadline=None, max_examples=8)
@given(st.floats(0, 2 * np.pi), st.floats(0.12, 1.0))
def test_a_clear_gap_in_any_direction_separates(angle: float, gap: float) -> None:
    # The longest side, 4 + g, is scaled to 2, so that g = 4 gap / (2 - gap) becomes `gap`.
    away = (2 + gap * 4 / (2 - gap)) * np.array([np.cos(angle), np.sin(angle), 0])
    measured = measure_islands(surface([ball(1), ball(1, away)]))
    pieces = measured["whole"]["2"]["islands"]
    assert [piece["share"] for piece in pieces] == [pytest.approx(0.5, abs=0.02)] * 2
    assert pieces[0]["gap"] >= 0.1
    assert count_objects(measured, MultiObjectConfig())[0] == "several"


def test_two_cubes_have_the_expected_measurements() -> None:
    measured = measure_islands(surface([box((1, 1, 1)), box((1, 1, 1), (3, 0, 0))]))
    assert measured["points"] == NUM_POINTS
    assert measured["slab"] is None
    for dilation in ("1", "2", "4"):
        level = measured["whole"][dilation]
        assert level["count"] == 2
        first, second = level["islands"]
        assert first["extent"] == pytest.approx([0.5, 0.5, 0.5], abs=0.05)
        assert first["gap"] == second["gap"] == pytest.approx(1.0, abs=0.05)
        assert [group["share"] for group in level["groups"]] == pytest.approx([0.5, 0.5], abs=0.02)
        assert level["groups"][0]["height"] == pytest.approx(0.5, abs=0.05)


def test_a_ground_plate_and_the_islands_above_it_are_measured() -> None:
    measured = measure_islands(surface(SEVERAL["small things on a wide ground"]))
    slab = measured["slab"]
    assert slab["cover"] == pytest.approx(1.0, abs=0.02)
    assert slab["share"] == pytest.approx(32 / (32 + 4.5 + 1.5), abs=0.05)
    assert slab["above"]["2"]["count"] == 5
    assert measured["whole"]["1"]["count"] == 1


def test_order_and_sampling_do_not_matter() -> None:
    points = surface(SEVERAL["tea set"])
    shuffled = np.random.default_rng(1).permutation(points)
    assert measure_islands(shuffled) == measure_islands(points)
    other = surface(SEVERAL["tea set"], seed=1)
    shares = [
        [group["share"] for group in measure_islands(sample)["whole"]["2"]["groups"]]
        for sample in (points, other)
    ]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


def test_measurements_survive_json() -> None:
    measured = measure_islands(surface(SEVERAL["garden"]))
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured


def test_one_point_is_one_object_and_no_point_is_an_error() -> None:
    measured = measure_islands(np.zeros((1, 3), dtype=np.float32))
    assert count_objects(measured, MultiObjectConfig())[0] == "one"
    with pytest.raises(ValueError, match="at least one point"):
        measure_islands(np.zeros((0, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="finite"):
        measure_islands(np.full((3, 3), np.nan, dtype=np.float32))
