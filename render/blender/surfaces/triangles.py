"""Areas and volumes of triangles, and vertices of their own for some of them."""

from dataclasses import replace

import numpy as np

from glb.surface import Surface

__all__ = [
    "area_vectors",
    "centroids",
    "corner_positions",
    "cross",
    "relative_volumes",
    "squares",
    "unshare",
]


def corner_positions(surface: Surface) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the positions (f, 3), float64, of the first, second and third corners."""
    first, second, third = (surface.positions[surface.faces[:, corner]] for corner in range(3))
    return first, second, third


def cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cross products (n, 3); np.cross takes three times as long."""
    (ax, ay, az), (bx, by, bz) = first.T, second.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def squares(vectors: np.ndarray) -> np.ndarray:
    """Return the squared lengths (n,) of vectors (n, 3)."""
    return np.einsum("ij,ij->i", vectors, vectors)


def area_vectors(surface: Surface) -> np.ndarray:
    """Return the normals (f, 3), float64, by winding, with twice the area as their length."""
    first, second, third = corner_positions(surface)
    second -= first
    third -= first
    return cross(second, third)


def centroids(surface: Surface) -> np.ndarray:
    """Return the centroids (f, 3), float64, of the triangles."""
    first, second, third = corner_positions(surface)
    first += second
    first += third
    first /= 3
    return first


def relative_volumes(
    points: np.ndarray, vectors: np.ndarray, groups: np.ndarray, num_groups: int
) -> np.ndarray:
    """Return the signed volume of each group of triangles about its centroid, over area^1.5.

    `points` (n, 3) are the triangles' centroids, `vectors` (n, 3) their area vectors and `groups`
    (n,) their groups. The volume is positive if the triangles look outward: a sphere has 0.094, a
    cube 0.068, a plane 0.
    """
    weights = np.sqrt(squares(vectors)) / 2
    areas = np.bincount(groups, weights, num_groups)
    safe = np.where(areas > 0, areas, 1)
    volumes = np.zeros(len(points))
    for axis in range(3):
        centres = np.bincount(groups, weights * points[:, axis], num_groups) / safe
        volumes += (points[:, axis] - centres[groups]) * vectors[:, axis]
    return np.bincount(groups, volumes / 6, num_groups) / safe**1.5


def unshare(surface: Surface, corners: np.ndarray) -> tuple[Surface, np.ndarray]:
    """Return the surface with own vertices for the corners of a mask (f, 3).

    Also returns the new vertices' indices, in the order of `np.nonzero(corners)`.
    """
    vertices = surface.faces[corners]
    new = np.arange(len(vertices), dtype=np.int32) + np.int32(len(surface.positions))
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
