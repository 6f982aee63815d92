"""The front of every triangle, by its normals and its winding."""

from dataclasses import replace

import numpy as np

from glb.geometry.surface import Surface
from render.blender.surfaces.triangles import (
    area_vectors,
    centroids,
    relative_volumes,
    squares,
    unshare,
)

__all__ = ["orient"]

_MIN_VOLUME = 1e-3
"""Relative volume (`relative_volumes`) below which a part is flat rather than closed."""
_MIN_MAJORITY = 1e-6
"""Of a part's area, by which triangles against their normals must outweigh the others."""
_BEHIND = -1e-6
"""Cosine below which a normal points behind its triangle, rather than along it but for rounding."""


def orient(surface: Surface) -> Surface:
    """Return the surface with triangles wound counter-clockwise as seen from their normals' side.

    A path tracer renders a triangle black if its normals point behind it. Exporters confuse the
    winding of single triangles more often than normals, so a triangle whose normals point behind it
    on average is turned. If that is most of a part's area, its normals and winding are inverses of
    each other, and either may be wrong: the one that gives the part a positive volume is kept. A
    part without a volume keeps its winding, which glTF defines to be the front. If a single normal
    still points behind its triangle, it is replaced by the triangle's own, for this triangle only.

    Triangles without normals keep their winding; normals that are not finite become zero.
    """
    normals = np.where(np.isfinite(surface.normals).all(axis=1, keepdims=True), surface.normals, 0)
    surface = replace(surface, normals=normals)
    vectors = area_vectors(surface)
    agreement = np.sum([_cosines(surface, vectors, corner) for corner in range(3)], axis=0)
    turned, inverted = _contradictions(surface, vectors, agreement)
    if inverted.any():
        vertices = surface.faces[inverted].ravel()
        normals = surface.normals.copy()
        normals[vertices] = -surface.normals[vertices]
        surface = replace(surface, normals=normals)
    if turned.any():
        faces = surface.faces.copy()
        faces[turned] = faces[turned][:, [0, 2, 1]]
        surface = replace(surface, faces=faces)
        vectors[turned] *= -1
    return _replace_normals_behind(surface, vectors)


def _contradictions(
    surface: Surface, vectors: np.ndarray, agreement: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return masks (f,): triangles to turn, and triangles of parts whose normals to invert."""
    parts = surface.parts
    num_parts = int(parts.max(initial=-1)) + 1
    areas = np.sqrt(squares(vectors))
    # One half of a part is not most of it, whatever the rounding of its area.
    balance = np.bincount(parts, areas * np.sign(agreement), num_parts)
    inverse = balance < -_MIN_MAJORITY * np.bincount(parts, areas, num_parts)
    # In a part that is mostly inverse, triangles without normals are wound as the others.
    against = (agreement < 0) | ((agreement == 0) & inverse[parts])
    if not inverse.any():
        return against, np.zeros_like(against)
    by_normals = np.where(against, -1.0, 1.0)[:, None] * vectors
    volumes = relative_volumes(centroids(surface), by_normals, parts, num_parts)
    inverted = (inverse & (volumes < _MIN_VOLUME))[parts]
    return against ^ inverted, inverted


def _cosines(surface: Surface, vectors: np.ndarray, corner: int) -> np.ndarray:
    """Return the products (f,) of a corner's normals and the triangles' area vectors."""
    normals = surface.normals[surface.faces[:, corner]]
    return np.einsum("ij,ij->i", normals.astype(np.float64), vectors)


def _replace_normals_behind(surface: Surface, vectors: np.ndarray) -> Surface:
    lengths = np.sqrt(squares(vectors))
    behind = np.stack(
        [_cosines(surface, vectors, corner) < _BEHIND * lengths for corner in range(3)], axis=1
    )
    if not behind.any():
        return surface
    surface, new = unshare(surface, behind)
    own = (vectors / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
    surface.normals[new] = own[np.nonzero(behind)[0]]
    return surface
