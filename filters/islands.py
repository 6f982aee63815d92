"""How the surface of an object falls into separate pieces.

No peer publishes a geometric test for "several objects": mesh nodes say nothing (a keyboard of 46
nodes is one object), and connected components of the mesh fail at seams. Here the surface is
sampled, voxelised and dilated, so that only gaps of a visible width separate pieces.
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
"""In voxels: what lies up to 2 d + 1 voxels (2.3, 3.9, 7.0 % of the frame) apart is joined."""

_GRID = 128
_VOXEL = 2.0 / _GRID
_FLAT = np.array([_GRID * _GRID, _GRID, 1])
_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
_NUM_LISTED = 8
# Crumbs take no part in grouping.
_MIN_GROUPED_SHARE = 0.01
# Directions in the ground plane, 11.25 degrees apart, along which pieces may lie apart.
_ANGLES = np.arange(16) * np.pi / 16
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
# A ground is thin beside its width, and nearly as wide as all that stands on it.
_SLAB_THICKNESS = 0.15
_SLAB_COVER = 0.7


@dataclass(frozen=True)
class _Surface:
    """The occupied voxels."""

    cells: Int[np.ndarray, "n 3"]
    area: Float[np.ndarray, "n"]
    """The part of the whole area in each voxel."""

    def where(self, chosen: Bool[np.ndarray, "n"]) -> "_Surface":
        return _Surface(self.cells[chosen], self.area[chosen])


def measure_islands(points: Float[np.ndarray, "n 3"]) -> dict[str, Any]:
    """Islands of a surface, from points spread evenly over its area (about 200,000).

    The points lie in the normalised frame [-1, 1]^3 with z up. Returns plain JSON values:

    - `points` (their number) and `voxel` (the side of one);
    - `whole`: for each dilation ("1", "2", "4")
      - `count` of the islands, and `islands`, the largest eight, each with its `share` of the area,
        its `extent` along x, y, z and its `gap` to the nearest other one (None if it is alone);
      - `groups`: islands that no vertical plane separates, because one lies above, inside or around
        the other, taken together; the largest eight, each with its `share` and the `height` of its
        tallest island;
    - `slab`: None, or the ground plate at the bottom: its `top` (z), `share` of the area, `cover`
      (the part of the footprint that it fills), and `above`: the same as `whole` for what rises
      above it, with shares of that part's area; None if nothing does.

    Raises ValueError without points or with one that is not finite.
    """
    if len(points) == 0 or not np.isfinite(points).all():
        raise ValueError("islands need at least one point, and finite ones")
    surface = _voxelise(points)
    slab = _find_slab(surface)
    measured: dict[str, Any] = {"points": len(points), "voxel": _VOXEL}
    measured["whole"] = _measure(surface)
    measured["slab"] = None
    if slab is not None:
        layer, cover = slab
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
    pieces = [surface.cells[labels == label] for label in range(max(num_grouped, _NUM_LISTED))]
    groups = _group(pieces[:num_grouped])
    share_of_group = np.bincount(groups, weights=shares[:num_grouped])
    largest = np.argsort(-share_of_group, kind="stable")[:_NUM_LISTED]
    return {
        "count": len(shares),
        "islands": [
            {
                "share": round(float(shares[label]), 4),
                "extent": [round(float(side), 4) for side in _extent(pieces[label])],
                "gap": _gap(surface.cells, labels == label),
            }
            for label in range(min(len(shares), _NUM_LISTED))
        ],
        "groups": [
            {
                "share": round(float(share_of_group[group]), 4),
                "height": round(
                    max(float(_extent(pieces[i])[2]) for i in np.flatnonzero(groups == group)), 4
                ),
            }
            for group in largest
        ],
    }


def _label(surface: _Surface, dilation: int) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "k"]]:
    """The 26-connected island of each voxel once the surface is dilated, and the islands' shares.

    Islands are numbered by their share of the area, the largest being 0.
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


def _group(pieces: list[Int[np.ndarray, "_ 3"]]) -> Int[np.ndarray, "k"]:
    """The group of each piece: pieces with no vertical plane between them are joined.

    Wheels in their arches, a planet in its ring or a shade above its lamp are parts of one object;
    cups beside a pot are not.
    """
    spans = [piece[:, :2] @ _DIRECTIONS for piece in pieces]
    low = np.array([span.min(axis=0) for span in spans])
    high = np.array([span.max(axis=0) for span in spans])
    gap = (low[:, None] - high[None]).max(axis=-1)
    joined = np.maximum(gap, gap.T) <= 0
    return connected_components(joined, directed=False)[1]


def _extent(piece: Int[np.ndarray, "_ 3"]) -> Float[np.ndarray, "3"]:
    return (np.ptp(piece, axis=0) + 1) * _VOXEL


def _gap(cells: Int[np.ndarray, "n 3"], mine: Bool[np.ndarray, "n"]) -> float | None:
    """The shortest distance between the centres of an island's voxels and of all others."""
    fewer, more = sorted((cells[mine], cells[~mine]), key=len)
    if len(fewer) == 0:
        return None
    # Both make it many times faster: an unbalanced tree, for the equal distances of a lattice, and
    # a bound from a few of the voxels.
    tree = cKDTree(more, balanced_tree=False, compact_nodes=False)
    bound = float(np.min(tree.query(fewer[::100])[0]))
    shortest = float(np.min(tree.query(fewer, distance_upper_bound=bound)[0]))
    return round(min(bound, shortest) * _VOXEL, 4)


def _find_slab(surface: _Surface) -> tuple[int, float] | None:
    """A ground plate's last layer of voxels and the part of the footprint that it covers, or None.

    The plate ends at the highest layer, within a thickness that is small beside the footprint's
    shorter side, whose largest connected patch covers most of the footprint of everything.
    """
    cells = surface.cells
    area = int(_footprint(cells).sum())
    shorter = int(np.ptp(cells[:, :2], axis=0).min()) + 1
    bottom = int(cells[:, 2].min())
    found = None
    for layer in range(bottom, bottom + int(_SLAB_THICKNESS * shorter) + 1):
        # A sheet that is not quite level, or lies on a voxel's face, spreads over three layers.
        patches, count = ndimage.label(
            _footprint(cells[np.abs(cells[:, 2] - layer) <= 1]), structure=_NEIGHBOURS[0]
        )
        if count:
            cover = int(np.bincount(patches.ravel())[1:].max()) / area
            if cover >= _SLAB_COVER:
                found = layer + 1, cover
    return found


def _footprint(cells: Int[np.ndarray, "n 3"]) -> Bool[np.ndarray, "a b"]:
    """The voxels' shadow on the ground, closed over gaps in the sampling."""
    shadow = np.zeros((_GRID + 2, _GRID + 2), dtype=bool)
    shadow[cells[:, 0] + 1, cells[:, 1] + 1] = True
    return ndimage.binary_dilation(shadow, structure=_NEIGHBOURS[0])
