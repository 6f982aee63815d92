"""Areas and volumes of triangles, and vertices of their own for some of them."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from glb.geometry.surface import Surface

__all__ = [
    "area_vectors",
    "centroids",
    "corner_positions",
    "cross",
    "largest_parts",
    "relative_volumes",
    "squares",
    "unshare",
]


_Vectors = Float64[np.ndarray, "n 3"]


def corner_positions(surface: Surface) -> tuple[_Vectors, _Vectors, _Vectors]:
    """Return the positions of the first, second and third corners of the faces."""
    first, second, third = (surface.positions[surface.faces[:, corner]] for corner in range(3))
    return first, second, third


def cross(first: _Vectors, second: _Vectors) -> _Vectors:
    """Return the cross products; np.cross takes three times as long."""
    (ax, ay, az), (bx, by, bz) = first.T, second.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def largest_parts(vectors: _Vectors) -> Float64[np.ndarray, "n"]:
    """Return the largest of the absolute values of each vector's parts."""
    x, y, z = np.abs(vectors).T
    return np.maximum(np.maximum(x, y), z)


def squares(vectors: _Vectors) -> Float64[np.ndarray, "n"]:
    """Return the squared lengths of vectors."""
    return np.einsum("ij,ij->i", vectors, vectors)


def area_vectors(surface: Surface) -> _Vectors:
    """Return the normals of the faces by winding, with twice the area as their length."""
    first, second, third = corner_positions(surface)
    second -= first
    third -= first
    return cross(second, third)


def centroids(surface: Surface) -> _Vectors:
    """Return the centroids of the faces."""
    first, second, third = corner_positions(surface)
    first += second
    first += third
    first /= 3
    return first


def relative_volumes(
    points: _Vectors, vectors: _Vectors, groups: Int[np.ndarray, "n"], num_groups: int
) -> Float64[np.ndarray, "g"]:
    """Return the signed volume of each group of triangles about its centroid, over area^1.5.

    `points` are the triangles' centroids, `vectors` their area vectors and `groups` their groups.
    The volume is positive if the triangles look outward: a sphere has 0.094, a cube 0.068, a plane
    0.
    """
    weights = np.sqrt(squares(vectors)) / 2
    areas = np.bincount(groups, weights, num_groups)
    safe = np.where(areas > 0, areas, 1)
    volumes = np.zeros(len(points))
    for axis in range(3):
        centres = np.bincount(groups, weights * points[:, axis], num_groups) / safe
        volumes += (points[:, axis] - centres[groups]) * vectors[:, axis]
    return np.bincount(groups, volumes / 6, num_groups) / safe**1.5


def unshare(
    surface: Surface, corners: Bool[np.ndarray, "f 3"]
) -> tuple[Surface, Int64[np.ndarray, "n"]]:
    """Return the surface with own vertices for the corners in a mask.

    Also returns the new vertices' indices, in the order of `np.nonzero(corners)`.
    """
    vertices = surface.faces[corners]
    new = np.arange(len(vertices)) + len(surface.positions)
    faces = surface.faces.copy()
    faces[corners] = new

    def grown(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, values[vertices]])

    changed = replace(
        surface,
        faces=faces,
        positions=grown(surface.positions),
        normals=grown(surface.normals),
        uvs={number: grown(values) for number, values in surface.uvs.items()},
        colours=None if surface.colours is None else grown(surface.colours),
    )
    return changed, new
