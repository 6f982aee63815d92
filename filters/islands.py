"""Islands (separate parts) of an object's surface, for the filter of multi-object files.

Other projects publish no geometric test for several objects in a file. Mesh nodes do not tell (a
keyboard of 46 nodes is one object), and connected components of a mesh break at its seams. So the
surface is sampled, voxelised and dilated, and only gaps of a visible width separate islands.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

__all__ = ["DILATIONS", "measure_islands"]

DILATIONS = (1, 2, 4)
"""In voxels. A dilation of d joins islands that are at most 2 d + 1 voxels apart (2.3, 3.9 and 7.0
% of the frame)."""

_GRID = 128
_VOXEL = 2.0 / _GRID
_FLAT = np.array([_GRID * _GRID, _GRID, 1])
_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
_NUM_LISTED = 8
# Share of the area; smaller islands are not grouped.
_MIN_GROUPED_SHARE = 0.01
# Directions in the ground plane, 11.25 degrees apart, along which islands are tested for a gap.
_ANGLES = np.arange(16) * np.pi / 16
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
# A ground plate is thin relative to its width, and covers most of the object's footprint.
_MAX_PLATE_THICKNESS = 0.15
_MIN_PLATE_COVER = 0.7


@dataclass(frozen=True)
class _Surface:
    """The occupied voxels of a surface."""

    cells: Int[np.ndarray, "n 3"]
    area: Float[np.ndarray, "n"]
    """The share of the whole area in each voxel."""

    def where(self, mask: Bool[np.ndarray, "n"]) -> "_Surface":
        return _Surface(self.cells[mask], self.area[mask])


def measure_islands(points: Float[np.ndarray, "n 3"]) -> dict[str, Any]:
    """Measure the islands of a surface, from points spread evenly over its area (about 200,000).

    The points lie in the normalised frame [-1, 1]^3 with z up. Returns plain JSON values:

    - `points` (their number) and `voxel` (the side of a voxel);
    - `whole`: for each dilation ("1", "2", "4")
      - `count`: the number of islands;
      - `islands`: the eight largest, each with its `share` of the area, its `extent` along x, y, z
        and the `gap` to the nearest other island (None if there is no other);
      - `groups`: islands that no vertical plane separates, because one lies above, inside or around
        the other, are one group; the eight largest, each with its `share` and the `height` of its
        tallest island;
    - `slab`: None, or the ground plate at the bottom with its `top` (z), its `share` of the area,
      its `cover` (the share of the footprint that it fills) and `above`: the same as `whole` for
      the part above the plate, with shares of that part's area; None if there is no such part.

    Raises ValueError if there are no points, or one is not finite.
    """
    if len(points) == 0 or not np.isfinite(points).all():
        raise ValueError("measuring islands needs at least one point, and finite points only")
    surface = _voxelise(points)
    plate = _find_ground_plate(surface)
    measured: dict[str, Any] = {"points": len(points), "voxel": _VOXEL}
    measured["whole"] = _measure(surface)
    measured["slab"] = None
    if plate is not None:
        layer, cover = plate
        above = surface.where(surface.cells[:, 2] > layer)
        measured["slab"] = {
            "top": round((layer + 1) * _VOXEL - 1, 4),
            "share": round(1 - float(above.area.sum()), 4),
            "cover": round(cover, 4),
            "above": _measure(above) if len(above.cells) else None,
        }
    return measured


def _voxelise(points: Float[np.ndarray, "n 3"]) -> _Surface:
    cells = np.clip((np.asarray(points) + 1) / _VOXEL, 0, _GRID - 1).astype(np.int64)
    flat, counts = np.unique(cells @ _FLAT, return_counts=True)
    return _Surface(flat[:, None] // _FLAT % _GRID, counts / len(points))


def _measure(surface: _Surface) -> dict[str, Any]:
    return {str(dilation): _level(surface, dilation) for dilation in DILATIONS}


def _level(surface: _Surface, dilation: int) -> dict[str, Any]:
    labels, shares = _label(surface, dilation)
    num_grouped = max(int((shares >= _MIN_GROUPED_SHARE).sum()), 1)
    islands = [surface.cells[labels == label] for label in range(max(num_grouped, _NUM_LISTED))]
    groups = _group(islands[:num_grouped])
    share_of_group = np.bincount(groups, weights=shares[:num_grouped])
    largest = np.argsort(-share_of_group, kind="stable")[:_NUM_LISTED]
    return {
        "count": len(shares),
        "islands": [
            {
                "share": round(float(shares[label]), 4),
                "extent": [round(float(side), 4) for side in _extent(islands[label])],
                "gap": _gap(surface.cells, labels == label),
            }
            for label in range(min(len(shares), _NUM_LISTED))
        ],
        "groups": [
            {
                "share": round(float(share_of_group[group]), 4),
                "height": round(
                    max(float(_extent(islands[i])[2]) for i in np.flatnonzero(groups == group)), 4
                ),
            }
            for group in largest
        ],
    }


def _label(surface: _Surface, dilation: int) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "k"]]:
    """Return the island of each voxel, and the share of the area of each island.

    Islands are the 26-connected components of the dilated surface, numbered by their share: the
    largest is 0.
    """
    low, high = surface.cells.min(axis=0), surface.cells.max(axis=0)
    inside = surface.cells - low + dilation
    occupied = np.zeros(high - low + 1 + 2 * dilation, dtype=np.uint8)
    occupied[tuple(inside.T)] = 1
    thick = ndimage.maximum_filter(occupied, size=2 * dilation + 1)
    grid, count = ndimage.label(thick, structure=_NEIGHBOURS)
    labels = grid[tuple(inside.T)] - 1
    shares = np.bincount(labels, weights=surface.area, minlength=count) / surface.area.sum()
    order = np.argsort(-shares, kind="stable")
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count)
    return rank[labels], shares[order]


def _group(islands: list[Int[np.ndarray, "_ 3"]]) -> Int[np.ndarray, "k"]:
    """Return the group of each island; islands that no vertical plane separates are one group.

    So wheels in their arches, a planet in its ring and a shade above its lamp are parts of one
    object; cups next to a pot are not.
    """
    spans = [island[:, :2] @ _DIRECTIONS for island in islands]
    low = np.array([span.min(axis=0) for span in spans])
    high = np.array([span.max(axis=0) for span in spans])
    gap = (low[:, None] - high[None]).max(axis=-1)
    joined = np.maximum(gap, gap.T) <= 0
    return connected_components(joined, directed=False)[1]


def _extent(island: Int[np.ndarray, "_ 3"]) -> Float[np.ndarray, "3"]:
    return (np.ptp(island, axis=0) + 1) * _VOXEL


def _gap(cells: Int[np.ndarray, "n 3"], of_island: Bool[np.ndarray, "n"]) -> float | None:
    """Return the shortest distance between the voxel centres of an island and all others."""
    fewer, more = sorted((cells[of_island], cells[~of_island]), key=len)
    if len(fewer) == 0:
        return None
    # Two things make the search many times faster: an unbalanced tree, because points on a lattice
    # have many equal distances, and an upper bound from a few of the voxels.
    tree = cKDTree(more, balanced_tree=False, compact_nodes=False)
    bound = float(np.min(tree.query(fewer[::100])[0]))
    shortest = float(np.min(tree.query(fewer, distance_upper_bound=bound)[0]))
    return round(min(bound, shortest) * _VOXEL, 4)


def _find_ground_plate(surface: _Surface) -> tuple[int, float] | None:
    """Return the top layer of the ground plate and the share of the footprint that it covers.

    The top is the highest layer whose largest connected patch covers most of the object's
    footprint, within a thickness that is small relative to the footprint's shorter side. None if
    there is no such layer.
    """
    cells = surface.cells
    area = int(_footprint(cells).sum())
    shorter = int(np.ptp(cells[:, :2], axis=0).min()) + 1
    bottom = int(cells[:, 2].min())
    plate = None
    for layer in range(bottom, bottom + int(_MAX_PLATE_THICKNESS * shorter) + 1):
        # A sheet that is slightly tilted, or lies on a voxel's face, spreads over three layers.
        patches, count = ndimage.label(
            _footprint(cells[np.abs(cells[:, 2] - layer) <= 1]), structure=_NEIGHBOURS[0]
        )
        if count:
            cover = int(np.bincount(patches.ravel())[1:].max()) / area
            if cover >= _MIN_PLATE_COVER:
                plate = layer + 1, cover
    return plate


def _footprint(cells: Int[np.ndarray, "n 3"]) -> Bool[np.ndarray, "a b"]:
    """Return the projection of the voxels on the ground, with gaps in the sampling closed."""
    projection = np.zeros((_GRID + 2, _GRID + 2), dtype=bool)
    projection[cells[:, 0] + 1, cells[:, 1] + 1] = True
    return ndimage.binary_dilation(projection, structure=_NEIGHBOURS[0])
