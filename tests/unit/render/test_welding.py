"""Positions are the same within a few roundings, wherever the sides of cells are."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from render.blender.surfaces.welding import connected, weld
from tests.support.triangle_surfaces import cube, join, sphere, surface_of


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-9, 1.0, 1e9]))
@settings(max_examples=20, deadline=None)
def test_close_positions_are_the_same_and_others_are_not(seed: int, scale: float):
    rng = np.random.default_rng(seed)
    points = rng.random((3000, 3))
    points[:2] = (0, 0, 0), (1, 1, 1)
    # Also exactly on the sides of cells.
    points[:1500] = np.round(points[:1500] / 4e-6) * 4e-6
    noise = rng.uniform(-1, 1, points.shape) * 1.4e-7
    both = np.concatenate([points, np.clip(points + noise, 0, 1)]) * scale
    labels = np.zeros(6000, dtype=np.int64)
    faces = rng.permutation(6000).reshape(-1, 3)
    labels[faces] = weld(surface_of(both, faces))
    assert np.array_equal(labels[:3000], labels[3000:])
    # Random points are further apart than a cell.
    assert len(np.unique(labels)) >= 2990


def test_bodies_share_no_position_and_a_cube_has_eight():
    labels = weld(join(cube(), sphere(centre=(5, 0, 0))))
    assert len(np.unique(labels[:12])) == 8
    assert not set(labels[:12].ravel()) & set(labels[12:].ravel())


def test_unused_vertices_do_not_count():
    body = cube()
    far = surface_of([*body.positions, (1e12, 0, 0)], body.faces)
    assert len(np.unique(weld(far))) == 8


@given(
    st.integers(1, 60).flatmap(
        lambda num: st.tuples(
            st.just(num),
            st.lists(st.tuples(st.integers(0, num - 1), st.integers(0, num - 1)), max_size=80),
        )
    )
)
@settings(max_examples=200, deadline=None)
def test_components_are_those_of_a_search(graph: tuple[int, list[tuple[int, int]]]):
    num, edges = graph
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    expected = list(range(num))
    for _ in range(num):
        for one, other in edges:
            expected[one] = expected[other] = min(expected[one], expected[other])
    assert connected(ends[:, 0], ends[:, 1], num).tolist() == expected


def test_long_chains_end():
    order = np.random.default_rng(0).permutation(100_000)
    assert not connected(order[:-1], order[1:], 100_000).any()
    line = np.arange(100_000)
    assert not connected(line[1:], line[:-1], 100_000).any()
