"""Vertices at the same position, and connected components."""

import numpy as np
from jaxtyping import Int64

from glb.geometry.surface import Surface

__all__ = ["connected", "weld"]

_CELL = 4e-6
"""Side of the cells in sizes of the surface: positions in the same cell are the same."""
_MARGIN = 1 / 16
"""In cells. Positions closer than this are the same, too, if the side of a cell is between them:
2.5e-7 of the size, a few roundings of float32."""
_BITS = 20
"""Per coordinate of a cell: 1 / _CELL cells and the shifts need 18."""


def weld(surface: Surface) -> Int64[np.ndarray, "f 3"]:
    """Return a number for the position of each corner: equal numbers, equal positions.

    Positions are equal within 2.5e-7 of the longest side of the bounds, and different beyond 1e-5.
    """
    used = np.zeros(len(surface.positions), dtype=bool)
    used[surface.faces] = True
    labels = np.zeros(len(used), dtype=np.int64)
    labels[used] = _equal_positions(surface.positions[used])
    return labels[surface.faces]


def connected(
    first: Int64[np.ndarray, "e"], second: Int64[np.ndarray, "e"], num_nodes: int
) -> Int64[np.ndarray, "n"]:
    """Return the lowest node of each node's component, given the first and second ends of edges."""
    root = np.arange(num_nodes)
    while True:
        first, second = root[first], root[second]
        apart = first != second
        if not apart.any():
            return root
        first, second = first[apart], second[apart]
        low, high = np.minimum(first, second), np.maximum(first, second)
        # Only roots get a parent, and always a lower one, so there is no cycle.
        np.minimum.at(root, high, low)
        while True:
            above = root[root]
            if np.array_equal(above, root):
                break
            root = above


def _equal_positions(points: np.ndarray) -> np.ndarray:
    """Return a label (n,) of each point (n, 3)."""
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    low = points.min(axis=0)
    size = (points.max(axis=0) - low).max()
    cells = (points - low) / (_CELL * size if size > 0 else 1)
    labels = _label_cells(cells)
    near = np.flatnonzero((np.abs(cells - np.rint(cells)) < _MARGIN).any(axis=1))
    if not len(near):
        return labels
    # Two close points between which there are sides of cells on any of the three axes are in the
    # same cell of at least one of three shifted grids.
    edges = []
    for shift in (0.25, 0.5, 0.75):
        shifted = _label_cells(cells[near] + shift)
        _, representative = np.unique(shifted, return_index=True)
        edges.append((labels[near], labels[near[representative]][shifted]))
    first, second = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    return connected(first, second, int(labels.max()) + 1)[labels]


def _label_cells(cells: np.ndarray) -> np.ndarray:
    """Return the number (n,), from 0, of the cell that each point (n, 3) is in."""
    x, y, z = np.floor(cells).astype(np.int64).T
    keys = (x << 2 * _BITS) | (y << _BITS) | z
    return np.unique(keys, return_inverse=True)[1]
