"""Quads in one place that are divided into triangles along different diagonals."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int64

from glb.geometry.surface import Surface
from render.blender.surfaces.triangles import area_vectors, squares

__all__ = ["align_diagonals"]

_COPLANAR = 1 - 1e-6
"""Cosine between normals: 0.08 degrees."""
_TOLERANCE = 1e-4
"""Of texture coordinates and colours at the ends of a diagonal, which both triangles have."""
_MAX_SHARING = 4
"""Triangles of a side that are compared with each other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """Pairs of coplanar triangles with a common side: faces, and the corners where it begins."""

    faces: Int64[np.ndarray, "n 2"]
    corners: Int64[np.ndarray, "n 2"]
    folded: Bool[np.ndarray, "n"]
    """Whether they lie on the same side of it, over each other, rather than beside."""

    def select(self, mask: np.ndarray) -> "_Pairs":
        """Return the pairs in a mask (n,)."""
        return _Pairs(faces=self.faces[mask], corners=self.corners[mask], folded=self.folded[mask])


def align_diagonals(
    surface: Surface, welded: Int64[np.ndarray, "f 3"], among: Bool[np.ndarray, "f"]
) -> tuple[Surface, Int64[np.ndarray, "f 3"]]:
    """Return the surface with coincident flat quads divided along the same diagonal.

    A card with two sides is often written as two quads with reversed corners, and triangles are
    made from the first corner: their diagonals cross. `welded` are the numbers of the corners'
    positions, and are returned for the new triangles; only faces in the mask `among` change.
    """
    # Triangles smaller than the distance of equal positions have no sides.
    distinct = (welded != np.roll(welded, 1, axis=1)).all(axis=1)
    faces = np.flatnonzero(among & distinct)
    pairs = _coplanar_pairs(surface, welded, faces)
    over = np.unique(pairs.faces[pairs.folded])
    if not len(over):
        return surface, welded
    flat = ~pairs.folded & np.isin(pairs.faces, over).all(axis=1)
    quads = pairs.select(flat & _continue(surface, welded, pairs))
    quads = quads.select(_divided_otherwise(welded, quads))
    # A triangle changes once; a quad of which another one has taken a triangle stays.
    used, first = np.unique(quads.faces.ravel(), return_index=True)
    taken = first[np.searchsorted(used, quads.faces)] // 2
    quads = quads.select((taken == np.arange(len(quads.faces))[:, None]).all(axis=1))
    changed, positions = surface.faces.copy(), welded.copy()
    one, other = quads.faces.T
    for values in (changed, positions):
        start, end, apex = (values[one, (quads.corners[:, 0] + step) % 3] for step in range(3))
        opposite = values[other, (quads.corners[:, 1] + 2) % 3]
        values[one] = np.stack([start, opposite, apex], axis=1)
        values[other] = np.stack([opposite, end, apex], axis=1)
    return replace(surface, faces=changed), positions


def _coplanar_pairs(surface: Surface, welded: np.ndarray, faces: np.ndarray) -> _Pairs:
    """Return the pairs of some faces (n,) that share a side and are in one plane."""
    starts, ends = welded[faces].ravel(), np.roll(welded[faces], -1, axis=1).ravel()
    keys = np.minimum(starts, ends) * (int(welded.max(initial=0)) + 1) + np.maximum(starts, ends)
    order = np.argsort(keys)
    keys, rising = keys[order], (starts < ends)[order]
    rows, corners = order // 3, order % 3
    normals = area_vectors(surface)[faces]
    normals /= np.sqrt(np.maximum(squares(normals), np.finfo(np.float64).tiny))[:, None]
    found = []
    for step in range(1, _MAX_SHARING):
        first = np.flatnonzero(keys[step:] == keys[:-step])
        second = first + step
        cosine = np.einsum("ij,ij->i", normals[rows[first]], normals[rows[second]])
        # Positive if both interiors are on the same side of the common side.
        cosine *= np.where(rising[first] == rising[second], 1, -1)
        coplanar = np.abs(cosine) > _COPLANAR
        both = np.stack([first, second], axis=1)[coplanar]
        found.append((faces[rows[both]], corners[both], cosine[coplanar] > 0))
    pairs, places, folded = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _Pairs(faces=pairs, corners=places, folded=folded)


def _continue(surface: Surface, welded: np.ndarray, pairs: _Pairs) -> np.ndarray:
    """Return whether the two triangles of each pair (n,) are parts of one smooth quad."""
    one, other = pairs.faces.T
    alike = surface.parts[one] == surface.parts[other]
    # Wound alike, they pass the common side in opposite directions.
    for first, second in ((0, 1), (1, 0)):
        left = one, (pairs.corners[:, 0] + first) % 3
        right = other, (pairs.corners[:, 1] + second) % 3
        alike &= welded[left] == welded[right]
        left, right = surface.faces[left], surface.faces[right]
        for values in (*surface.uvs.values(), surface.colours):
            if values is not None:
                alike &= (np.abs(values[left] - values[right]) <= _TOLERANCE).all(axis=1)
    return alike


def _divided_otherwise(welded: np.ndarray, quads: _Pairs) -> np.ndarray:
    """Return which quads (n,) to divide along the other diagonal, because another one is."""
    one, other = quads.faces.T
    corners = quads.corners
    ends = np.stack([welded[one, corners[:, 0]], welded[one, (corners[:, 0] + 1) % 3]], axis=1)
    apexes = np.stack(
        [welded[one, (corners[:, 0] + 2) % 3], welded[other, (corners[:, 1] + 2) % 3]], axis=1
    )
    everything = np.sort(np.concatenate([ends, apexes], axis=1), axis=1)
    places = np.unique(everything, axis=0, return_inverse=True)[1].reshape(-1)
    # The lowest corner of the four is an end of the diagonal that is chosen.
    wanted = (ends == everything[:, :1]).any(axis=1)
    has_wanted = np.bincount(places, wanted) > 0
    return ~wanted & has_wanted[places]
