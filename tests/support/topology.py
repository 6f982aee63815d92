"""Comparison of meshes, defects of their topology, and random surfaces."""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from torch import Tensor

from train.models.surfaces.flexicubes import (
    CubeWeights,
    Surface,
    find_surface,
    grid_vertices,
    shape_surface,
)


def assert_same_mesh(
    surface: Surface, vertices: Tensor, faces: Tensor, name: str, tolerance: float = 1e-5
) -> None:
    """Assert that both have the same vertices and the same oriented triangles, in any order."""
    assert surface.vertices.shape == vertices.shape, name
    assert surface.faces.shape == faces.shape, name
    if not len(vertices):
        return
    distance, nearest = KDTree(vertices.numpy()).query(surface.vertices.detach().numpy())
    assert distance.max() < tolerance, name
    assert len(np.unique(nearest)) == len(vertices), name
    actual, expected = (
        canonical_order(nearest[surface.faces.numpy()]),
        canonical_order(faces.numpy()),
    )
    assert np.array_equal(actual, expected), name


def canonical_order(faces: Int[np.ndarray, "m 3"]) -> Int[np.ndarray, "m 3"]:
    """Return the triangles in a canonical order: each starts at its smallest index, all sorted."""
    starts = faces.argmin(axis=1, keepdims=True)
    rotated = np.take_along_axis(faces, (starts + np.arange(3)) % 3, axis=1)
    return rotated[np.lexsort(rotated.T)]


def random_field(seed: int, resolution: int, *, closed: bool = True) -> Float[Tensor, "v"]:
    """Return a signed distance field: a sum of plane waves, the shortest three cubes long.

    If `closed`, the border of the grid is outside, so that the surface is closed.
    """
    rng = np.random.default_rng(seed)
    grid = grid_vertices(resolution, 2.0).numpy()
    waves = rng.normal(size=(24, 3))
    longest = 2 * np.pi * resolution / 2 / 3
    waves *= rng.uniform(1, longest, size=(24, 1)) / np.linalg.norm(waves, axis=1, keepdims=True)
    phases = rng.uniform(0, 2 * np.pi, size=24)
    field = np.cos(grid @ waves.T + phases).sum(axis=1) + rng.uniform(-3, 3)
    if closed:
        border = np.abs(grid).max(axis=1) > 1 - 1e-6
        field[border] = np.abs(field[border])
    return torch.from_numpy(field).float()


def random_surface(seed: int, resolution: int, *, centred: bool, closed: bool = True) -> Surface:
    """Return the surface of a random field on a deformed grid, with random weights."""
    generator = torch.Generator().manual_seed(seed)
    sdf = random_field(seed, resolution, closed=closed)
    cells = find_surface(sdf, resolution)
    raw = torch.randn(len(cells.cubes), 21, generator=generator)
    grid = grid_vertices(resolution, 2.0)
    grid = grid + (torch.rand(grid.shape, generator=generator) - 0.5) / resolution
    weights = CubeWeights.from_raw(raw, scale=0.99)
    return shape_surface(cells, grid, sdf, weights, centred=centred)


def defects(faces: Int[Tensor, "m 3"]) -> list[str]:
    """Return why a triangle mesh is not closed, manifold and consistently oriented."""
    triangles = faces.numpy()
    starts, ends = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
    span = int(triangles.max(initial=0)) + 1
    edges, reversed_edges = starts * span + ends, ends * span + starts
    problems = []
    if len(np.unique(edges)) < len(edges):
        problems.append("two triangles have an edge in the same direction")
    if len(np.setdiff1d(edges, reversed_edges)):
        problems.append("an edge belongs to one triangle only")
    if _fans(triangles) > len(np.unique(triangles)):
        problems.append("a vertex joins separate fans")
    return problems


def _fans(triangles: np.ndarray) -> int:
    """Return the total number of triangle fans around all vertices."""
    corners = np.arange(triangles.size).reshape(-1, 3)
    starts, ends = triangles, np.roll(triangles, -1, axis=1)
    edges = np.sort(np.stack([starts.ravel(), ends.ravel()], axis=1), axis=1)
    _, edge = np.unique(edges, axis=0, return_inverse=True)
    # At each end of an edge, the corners of its two triangles are neighbours.
    at_start, at_end = corners.ravel(), np.roll(corners, -1, axis=1).ravel()
    swapped = starts.ravel() > ends.ravel()
    low, high = np.where(swapped, at_end, at_start), np.where(swapped, at_start, at_end)
    order = np.argsort(edge.ravel(), kind="stable")
    same = np.diff(edge.ravel()[order]) == 0
    before, after = order[:-1][same], order[1:][same]
    rows = np.concatenate([low[before], high[before]])
    columns = np.concatenate([low[after], high[after]])
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(triangles.size,) * 2)
    return int(connected_components(graph, directed=False)[0])


def signed_volume(surface: Surface) -> float:
    """Return the volume of a closed mesh; negative if its triangles face inwards."""
    a, b, c = surface.vertices.detach()[surface.faces].double().unbind(dim=1)
    return float((torch.linalg.cross(a, b) * c).sum() / 6)
