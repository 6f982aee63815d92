"""The mesh that Pixel2Mesh deforms, and what follows from its faces at three resolutions.

A level's vertices are those of the level before, followed by the midpoints of its edges.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.linalg import eigsh
from scipy.spatial import ConvexHull
from torch import Tensor, nn

from train.models.pixel2mesh.sparse_matrix import SparseMatrix

__all__ = ["CENTRE", "MAX_VERTICES", "MeshLevel", "Template", "ellipsoid", "mesh_levels"]

CENTRE = (0.0, 0.0, -0.8)
"""Centre of the template in the camera's frame, in which the camera is 0.8 from the object."""
MAX_VERTICES = 2500
"""Most vertices of a template; the final mesh has 16 times as many."""
_NUM_LEVELS = 3
_BELOW_EIGENVALUES = -0.501
"""Less than any eigenvalue of the normalised adjacency of a closed triangle mesh. These are at
least -1/2, because the quadratic form is a sum over the faces of y_a y_b + y_b y_c + y_c y_a, each
at least -(y_a^2 + y_b^2 + y_c^2) / 2."""
_HALF_AXES = (0.280, 0.198, 0.198)
"""Of the ellipsoid that fits the template of the published weights best."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Template:
    """A closed triangle mesh in the camera's frame, around `CENTRE`."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    """Vertices of each face, counter-clockwise seen from outside."""

    def __post_init__(self) -> None:
        """Turn faces outwards. Raises ValueError if they are not closed and consistently wound."""
        num_vertices = len(self.vertices)
        if not np.isfinite(self.vertices).all():
            raise ValueError("a vertex is not finite")
        if not np.array_equal(np.unique(self.faces), np.arange(num_vertices)):
            raise ValueError(f"the faces do not use each of the {num_vertices} vertices")
        sides = _sides(self.faces)
        if np.any(sides[:, 0] == sides[:, 1]):
            raise ValueError("a face uses a vertex twice")
        keys, reverse = (np.sort(s @ (num_vertices, 1)) for s in (sides, sides[:, ::-1]))
        if np.any(keys[1:] == keys[:-1]) or not np.array_equal(keys, reverse):
            raise ValueError(
                "the faces are not a closed surface of consistent winding: each side of a face "
                "needs exactly one other face, which has it in the opposite direction"
            )
        if np.linalg.det(self.vertices[self.faces]).sum() < 0:
            object.__setattr__(self, "faces", self.faces[:, ::-1].copy())


def ellipsoid(num_vertices: int = 156) -> Template:
    """Return the convex hull of points on an ellipsoid: 2 n - 4 faces.

    The points are a Fibonacci spiral around the longest axis, so that all are equally dense.
    """
    steps = np.arange(num_vertices) + 0.5
    height = 1 - 2 * steps / num_vertices
    angle = steps * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - height**2)
    sphere = np.stack([height, radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    points = sphere * _HALF_AXES
    return Template(vertices=points + CENTRE, faces=_hull_faces(points))


def _hull_faces(points: Float[np.ndarray, "v 3"]) -> Int[np.ndarray, "f 3"]:
    """Return the hull's faces around the origin with outward winding, in a fixed order."""
    hull = ConvexHull(points)
    faces = hull.simplices.astype(np.int64)
    inward = np.linalg.det(points[faces]) < 0
    faces[inward] = faces[inward][:, ::-1]
    turned = (faces.argmin(axis=1)[:, None] + np.arange(3)) % 3
    faces = np.take_along_axis(faces, turned, axis=1)
    return faces[np.lexsort(faces.T[::-1])]


class MeshLevel(nn.Module):
    """One resolution of the template: its faces, and what is derived from them.

    It is a module so that its tensors move with the model; none is in the state dict.
    """

    faces: Int[Tensor, "f 3"]
    """As `Template.faces`."""
    edges: Int[Tensor, "e 2"]
    """Vertices i < j of each edge, sorted: the pairs that unpooling adds the midpoints of."""

    def __init__(self, num_vertices: int, faces: Int[np.ndarray, "f 3"]) -> None:
        super().__init__()
        self.num_vertices = num_vertices
        edges = _edges(num_vertices, faces)
        for name, array in (("faces", faces), ("edges", edges)):
            tensor = torch.from_numpy(array.astype(np.int64)).to(torch.get_default_device())
            self.register_buffer(name, tensor, persistent=False)
        vertices, numbers = np.arange(num_vertices), np.arange(len(edges))
        halves = np.full(len(edges), 0.5)
        self.unpooling = _matrix(
            (num_vertices + len(edges), num_vertices),
            (vertices, vertices, np.ones(num_vertices)),
            *((num_vertices + numbers, ends, halves) for ends in edges.T),
        )
        """Keeps the vertices and appends the mean of each edge's two."""
        self.sides = _matrix(
            (len(edges), num_vertices),
            (numbers, edges[:, 0], np.ones(len(edges))),
            (numbers, edges[:, 1], -np.ones(len(edges))),
        )
        """Vectors of the edges: the vertex i minus the vertex j."""
        rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
        degrees = np.bincount(rows)
        square, loops = (num_vertices, num_vertices), (vertices, vertices)
        self.laplacian = _matrix(
            square, (rows, columns, -1 / degrees[rows]), (*loops, np.ones(num_vertices))
        )
        """Each vertex minus the mean of its neighbours."""
        adjacency = 1 / np.sqrt(degrees[rows] * degrees[columns])
        scale = 2 / _largest_eigenvalue(coo_array((adjacency, (rows, columns)), shape=square))
        self.support = _matrix(
            square,
            (rows, columns, -scale * adjacency),
            (*loops, np.full(num_vertices, scale - 1)),
        )
        """The scaled Laplacian 2 / lmax · L - I with L = I - D^-1/2 A D^-1/2."""


def mesh_levels(template: Template) -> tuple[MeshLevel, ...]:
    """Return the template's resolutions: of 156 vertices 156, 618 and 2466."""
    num_vertices, faces = len(template.vertices), template.faces
    levels = []
    for _ in range(_NUM_LEVELS):
        levels.append(MeshLevel(num_vertices, faces))
        num_vertices, faces = _subdivide(num_vertices, faces)
    return tuple(levels)


def _sides(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "s 2"]:
    """Return the directed sides of all faces."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def _edges(num_vertices: int, faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "e 2"]:
    keys = np.unique(np.sort(_sides(faces), axis=1) @ (num_vertices, 1))
    return np.stack(np.divmod(keys, num_vertices), axis=1)


def _subdivide(
    num_vertices: int, faces: Int[np.ndarray, "f 3"]
) -> tuple[int, Int[np.ndarray, "4*f 3"]]:
    """Split each face into four at the midpoints of its sides and keep the winding."""
    keys = _edges(num_vertices, faces) @ (num_vertices, 1)
    sides = np.sort(_sides(faces), axis=1) @ (num_vertices, 1)
    ab, bc, ca = (num_vertices + np.searchsorted(keys, sides)).reshape(3, -1)
    a, b, c = faces.T
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return num_vertices + len(keys), np.stack(parts, axis=1).reshape(3, -1).T.copy()


def _matrix(
    shape: tuple[int, int], *parts: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> SparseMatrix:
    """Return a matrix of the rows, columns and values of its parts."""
    rows, columns, values = (np.concatenate(one) for one in zip(*parts, strict=True))
    return SparseMatrix(rows, columns, values, shape)


def _largest_eigenvalue(adjacency: coo_array) -> float:
    """Return the largest eigenvalue of I minus a normalised adjacency, the Laplacian.

    It is rounded, so that the number of threads does not show. Iterations with the inverse take two
    seconds for 40,000 vertices; without, they may not end, because eigenvalues are close together.
    """
    # A start without symmetry: Lanczos would miss an eigenvector that is orthogonal to it.
    start = np.random.RandomState(0).standard_normal(adjacency.shape[0])
    smallest: Any = eigsh(
        adjacency.tocsc(),
        k=1,
        sigma=_BELOW_EIGENVALUES,
        v0=start,
        return_eigenvectors=False,
    )
    return round(1 - float(smallest[0]), 9)
