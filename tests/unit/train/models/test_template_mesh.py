"""The template and its resolutions: the oracle, and what holds for every closed mesh."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from train.models.pixel2mesh.template_mesh import (
    CENTRE,
    MAX_VERTICES,
    Template,
    ellipsoid,
    mesh_levels,
)


def body(seed, num_vertices=30):
    """Return the ellipsoid with other vertex positions and an order of vertices by chance."""
    random = np.random.RandomState(seed)
    mesh = ellipsoid(num_vertices)
    order = random.permutation(num_vertices)
    vertices = np.empty_like(mesh.vertices)
    vertices[order] = mesh.vertices + random.normal(0, 0.005, mesh.vertices.shape)
    return Template(vertices=vertices, faces=order[mesh.faces])


def coordinates(template):
    """Return each level's vertices, by repeated unpooling."""
    points = torch.tensor(template.vertices)[None]
    for level in mesh_levels(template):
        yield level, points[0]
        points = level.unpooling(points)


def degrees(level):
    return level.edges.flatten().bincount()


def volume(points, faces):
    return torch.linalg.det(points[faces]).sum().item() / 6


def dense(level):
    return level.support(torch.eye(level.num_vertices, dtype=torch.float64)[None])[0]


def test_levels_match_the_oracle(oracle):
    expected = oracle("p2m_graph")
    template = Template(
        vertices=expected["in.vertices"].double().numpy(), faces=expected["in.faces"].numpy()
    )
    for number, (level, points) in enumerate(coordinates(template), start=1):
        support = dense(level)
        torch.testing.assert_close(
            support.diag(), torch.full_like(support.diag(), expected["out.diag"][number - 1])
        )
        assert torch.equal(support.nonzero(), expected[f"out.edges_{number}"])
        table = expected[f"out.laplace_idx_{number}"]
        rows, slots = (table[:, :8] >= 0).nonzero().T
        laplacian = torch.eye(level.num_vertices)
        laplacian[rows, table[rows, slots]] = -1 / table[rows, 9]
        torch.testing.assert_close(
            level.laplacian(torch.eye(level.num_vertices)[None])[0], laplacian
        )
        if number < 3:
            expected.check(support.float(), f"out.support1_{number}", 1e-6)
            assert torch.equal(level.edges, expected[f"out.unpool_{number}"])
        if number > 1:
            expected.check(points.float(), f"out.vertices_{number}", 1e-6)
            faces, published = level.faces, expected[f"out.faces_{number}"]
            assert set(map(frozenset, faces.tolist())) == set(map(frozenset, published.tolist()))


def test_the_ellipsoid_has_the_published_counts():
    levels = mesh_levels(ellipsoid())
    assert [level.num_vertices for level in levels] == [156, 618, 2466]
    assert [len(level.faces) for level in levels] == [308, 1232, 4928]
    assert [len(level.edges) for level in levels] == [462, 1848, 7392]
    assert degrees(levels[0]).bincount().tolist() == [0] * 5 + [24, 120, 12]


@pytest.mark.parametrize(
    "template",
    [*(ellipsoid(n) for n in (12, 13, 47)), *(body(seed) for seed in range(3))],
    ids=lambda template: str(len(template.vertices)),
)
def test_every_level_is_a_closed_surface_with_outward_winding(template):
    first = volume(torch.tensor(template.vertices), torch.tensor(template.faces))
    assert first > 0
    for level, points in coordinates(template):
        faces, edges = level.faces, level.edges
        assert level.num_vertices - len(edges) + len(faces) == 2
        sides = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        assert len(sides.unique(dim=0)) == len(sides)
        assert torch.equal(sides.unique(dim=0), sides.flip(1).unique(dim=0))
        assert volume(points, faces) == pytest.approx(first)
        assert degrees(level).max() <= 8
        assert torch.equal(level.sides(points[None])[0], points[edges[:, 0]] - points[edges[:, 1]])


@pytest.mark.parametrize("template", [ellipsoid(20), body(5), body(6, 24)], ids=str)
def test_supports_are_symmetric_with_eigenvalues_from_minus_1_to_1(template):
    for level in mesh_levels(template)[:2]:
        support = dense(level)
        assert torch.equal(support, support.T)
        values = torch.linalg.eigvalsh(support)
        assert values.min().item() == pytest.approx(-1, abs=1e-6)
        assert values.max().item() == pytest.approx(1, abs=1e-6)


def test_a_template_is_centred_in_front_of_the_camera():
    low, high = ellipsoid(400).vertices.min(axis=0), ellipsoid(400).vertices.max(axis=0)
    np.testing.assert_allclose((low + high) / 2, CENTRE, atol=2e-3)
    np.testing.assert_allclose((high - low) / 2, (0.280, 0.198, 0.198), atol=2e-3)


def test_faces_that_point_inwards_are_turned():
    mesh = ellipsoid(20)
    assert np.array_equal(replace(mesh, faces=mesh.faces[:, ::-1]).faces, mesh.faces)


DAMAGES = {
    "hole": (lambda v, f: (v, f[1:]), "closed"),
    "doubled face": (lambda v, f: (v, np.concatenate([f, f[:1]])), "closed"),
    "one face turned": (lambda v, f: (v, np.concatenate([f[:1, ::-1], f[1:]])), "closed"),
    "face of a point": (lambda v, f: (v, np.concatenate([f, f[:1, [0, 0, 0]]])), "twice"),
    "vertex without faces": (lambda v, f: (np.concatenate([v, v[:1]]), f), "each of the 21"),
    "vertex that is not there": (lambda v, f: (v[:-1], f), "each of the 19"),
    "negative number": (lambda v, f: (v, f - 1), "each of the 20"),
    "not a number": (lambda v, f: (v * np.nan, f), "finite"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_surface_that_is_not_closed_is_refused(damage):
    change, message = DAMAGES[damage]
    mesh = ellipsoid(20)
    vertices, faces = change(mesh.vertices, mesh.faces)
    with pytest.raises(ValueError, match=message):
        Template(vertices=vertices, faces=faces)


def double_pyramid(num_sides):
    """Return a template two of whose vertices are neighbours of all others."""
    angle = np.arange(num_sides) / num_sides * 2 * np.pi
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    following = np.roll(np.arange(num_sides), -1)
    sides = np.stack([np.arange(num_sides), following], axis=1)
    tops = np.full((num_sides, 1), num_sides)
    faces = np.concatenate([np.hstack([sides, tops]), np.hstack([sides[:, ::-1], tops + 1])])
    vertices = np.concatenate([ring, [[0, 0, 1], [0, 0, -1]]]) * 0.2 + CENTRE
    return Template(vertices=vertices, faces=faces)


@pytest.mark.parametrize("make", [ellipsoid, lambda n: double_pyramid(n - 2)])
def test_a_template_of_any_shape_takes_memory_and_time_by_its_size(make):
    """A table of neighbours has a column per neighbour, and close eigenvalues cost iterations."""
    started = time.process_time()
    levels = mesh_levels(make(MAX_VERTICES // 4))
    assert time.process_time() - started < 3
    num_bytes = sum(buffer.nbytes for level in levels for buffer in level.buffers())
    assert num_bytes < 1500 * levels[-1].num_vertices


def test_a_template_of_even_degrees_has_the_lowest_possible_eigenvalue():
    """Its inverse would be singular there."""
    octahedron = double_pyramid(4)
    for level in mesh_levels(octahedron):
        assert dense(level).diag().tolist() == pytest.approx([2 / 1.5 - 1] * level.num_vertices)
