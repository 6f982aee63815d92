"""The 256 cases of dual marching cubes: how a surface passes through a cube.

Corner i of a cube lies at x = i & 1, y = i >> 1 & 1, z = i >> 2 & 1. Bit i of a case is set if
corner i is inside. The surface cuts every edge whose ends differ. On each face, the cut edges are
connected in pairs. Connected edges form closed rings, the patches, and each patch gets one dual
vertex (Nielson, "Dual Marching Cubes", 2004).

A face with four cut edges is ambiguous. By default each of its two inside corners is cut off
separately, a rule that both cubes at the face share. If the two pairs of edges belong to the same
patch in both cubes, their two dual vertices would be connected twice, which is not manifold. Both
cubes then connect the pairs the other way, around the outside corners, as in the complementary case
(FlexiCubes, arXiv 2308.03156, supplementary material 1.3; Nielson's configurations C16 and C19).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Int8

__all__ = ["CUBE_CORNERS", "CUBE_EDGES", "FACE_OFFSETS", "CubeCases", "cube_cases"]

CUBE_CORNERS = tuple((i & 1, i >> 1 & 1, i >> 2 & 1) for i in range(8))
"""Offset of each corner along x, y, z."""
CUBE_EDGES = (
    *((0, 1), (1, 5), (4, 5), (0, 4), (2, 3), (3, 7)),
    *((6, 7), (2, 6), (0, 2), (1, 3), (5, 7), (4, 6)),
)
"""Corners of each edge, the one nearer to the origin first. The order is that of the published
weights, as derived from the gradients in the oracle `flexicubes`."""
FACE_OFFSETS = tuple(
    tuple(side if other == axis else 0 for other in range(3))
    for axis in range(3)
    for side in (-1, 1)
)
"""Offset to the neighbouring cube at each face: -x, +x, -y, +y, -z, +z."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CubeCases:
    """Tables of the 256 cases."""

    patch: Int8[np.ndarray, "256 12"]
    """The patch that cuts each edge, counted from 0; -1 if the edge is not cut."""
    num_patches: Int8[np.ndarray, "256"]
    problematic_face: Int8[np.ndarray, "256"]
    """The ambiguous face whose four edges belong to one patch; -1 if there is none."""


@cache
def cube_cases() -> CubeCases:
    """Return the tables of all cases."""
    patch = np.full((256, len(CUBE_EDGES)), -1, np.int8)
    problematic = np.full(256, -1, np.int8)
    for case in range(256):
        for number, edges in enumerate(_patches(case)):
            patch[case, edges] = number
        for face, corners in enumerate(_face_corners()):
            edges = _edges_between(corners)
            if all(patch[case, edge] >= 0 for edge in edges) and len({*patch[case, edges]}) == 1:
                # No case has a second such face, which could not be resolved.
                assert problematic[case] < 0
                problematic[case] = face
    return CubeCases(patch=patch, num_patches=patch.max(axis=1) + 1, problematic_face=problematic)


def _patches(case: int) -> list[list[int]]:
    """Return the edges of every patch, ordered by their first edges."""
    patch_of: dict[int, frozenset[int]] = {}
    for first, second in _connected_edges(case):
        merged = patch_of.get(first, frozenset({first})) | patch_of.get(second, frozenset({second}))
        patch_of.update(dict.fromkeys(merged, merged))
    return sorted(sorted(patch) for patch in set(patch_of.values()))


def _connected_edges(case: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs of cut edges that the surface connects on each face."""
    for corners in _face_corners():
        edges = _edges_between(corners)
        cut = [edge for edge in edges if _is_cut(case, edge)]
        if len(cut) == 2:
            yield cut[0], cut[1]
        elif len(cut) == 4:
            for corner in corners:
                if case >> corner & 1:
                    first, second = (edge for edge in cut if corner in CUBE_EDGES[edge])
                    yield first, second


def _face_corners() -> list[list[int]]:
    """Return the four corners of each face, in the order of FACE_OFFSETS."""
    return [
        [i for i, corner in enumerate(CUBE_CORNERS) if corner[axis] == side]
        for axis in range(3)
        for side in (0, 1)
    ]


def _edges_between(corners: list[int]) -> list[int]:
    return [i for i, (a, b) in enumerate(CUBE_EDGES) if a in corners and b in corners]


def _is_cut(case: int, edge: int) -> bool:
    first, second = CUBE_EDGES[edge]
    return (case >> first & 1) != (case >> second & 1)
