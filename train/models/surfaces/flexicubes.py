"""FlexiCubes: differentiable extraction of a mesh from a signed distance field.

Shen et al. 2023 (arXiv 2308.03156), on a regular grid of r^3 cubes. Vertices and cubes are numbered
with x slowest and z fastest; a vertex is inside if its distance is below 0. Extraction has two
steps: `find_surface` uses only signs and has no gradient, `shape_surface` computes vertex positions
with gradients with respect to distances, grid vertices and weights.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from train.models.surfaces.cube_cases import CUBE_CORNERS, CUBE_EDGES, FACE_OFFSETS, cube_cases

__all__ = [
    "CubeWeights",
    "Surface",
    "SurfaceCells",
    "cube_corners",
    "find_surface",
    "grid_axis",
    "grid_vertices",
    "sdf_sign_loss",
    "shape_surface",
]

_NUM_EDGES = len(CUBE_EDGES)
_MIN_GAMMA = 1e-8
"""Added to a sum of gammas that is divided by."""
# Offsets of the four cubes at an edge along the two axes after the edge's own, cyclically in
# x, y, z; counter-clockwise as seen from the edge's far end.
_RING = ((0, -1), (0, 0), (-1, 0), (-1, -1))
_Y = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class CubeWeights:
    """FlexiCubes' parameters of s cubes; the default of each is 1."""

    beta: Float[Tensor, "s 12"]
    """Weight of each edge's crossing in its dual vertex, in the order of CUBE_EDGES."""
    alpha: Float[Tensor, "s 8"]
    """Factor on the distance at each corner."""
    gamma: Float[Tensor, "s"]
    """Weight of the cube's dual vertices in the split of quads."""

    @classmethod
    def from_raw(cls, raw: Float[Tensor, "s 21"], scale: float) -> "CubeWeights":
        """Map network outputs to beta and alpha in 1 ± scale and gamma in (1 ± scale) / 2."""
        beta, alpha, gamma = raw.float().split([_NUM_EDGES, len(CUBE_CORNERS), 1], dim=-1)
        return cls(
            beta=beta.tanh() * scale + 1,
            alpha=alpha.tanh() * scale + 1,
            gamma=gamma[..., 0].sigmoid() * scale + (1 - scale) / 2,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceCells:
    """Topology of a surface in the grid: s cubes, d dual vertices, q quads."""

    cubes: Int[Tensor, "s"]
    """Indices of the cubes with surface, ascending."""
    corners: Int[Tensor, "s 8"]
    """Grid vertices at the corners of these cubes."""
    cube_of_dual: Int[Tensor, "d"]
    """Index in `cubes` of each dual vertex's cube."""
    cut: Bool[Tensor, "d 12"]
    """Whether an edge of that cube has a crossing that belongs to the dual vertex."""
    quads: Int[Tensor, "q 4"]
    """Dual vertices of each quad, counter-clockwise seen from outside."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """A triangle mesh, and the deviations that the regularizer uses."""

    vertices: Float[Tensor, "n 3"]
    faces: Int[Tensor, "m 3"]
    """Vertices of each triangle, counter-clockwise seen from outside."""
    deviation: Float[Tensor, "p"]
    """L_dev: for each dual vertex and crossing, the absolute difference between their distance
    and the mean distance of that vertex's crossings."""


def grid_axis(
    resolution: int, size: float, device: torch.device | None = None, *, published: bool = False
) -> Float[Tensor, "n"]:
    """Return the coordinates of a grid's vertices along one axis; `grid_vertices` has the grid.

    `published`: each is rounded to five decimals of the side, as the released code does.
    """
    if not published:
        return torch.linspace(-size / 2, size / 2, resolution + 1, device=device)
    steps = torch.arange(resolution + 1, device=device) / resolution
    return (steps.round(decimals=5) - 0.5) * size


def grid_vertices(
    resolution: int, size: float, device: torch.device | None = None, *, published: bool = False
) -> Float[Tensor, "v 3"]:
    """Return the vertices of a grid of resolution^3 cubes of total side `size`, at the origin."""
    axis = grid_axis(resolution, size, device, published=published)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).flatten(0, 2)


def find_surface(sdf: Float[Tensor, "v"], resolution: int) -> SurfaceCells:
    """Return the topology of the surface, without gradients.

    Where a surface leaves the grid, the mesh is open: it ends inside the last cubes.
    """
    side = resolution + 1
    inside = (sdf.detach() < 0).view(side, side, side)
    cases = _resolve(_corner_cases(inside))
    tables = cube_cases()
    patch = torch.from_numpy(tables.patch).to(sdf.device)
    num_patches = torch.from_numpy(tables.num_patches).to(sdf.device).long()

    counts = num_patches[cases.flatten()]
    cubes = counts.nonzero()[:, 0]
    cube_of_dual = torch.repeat_interleave(counts[cubes])
    first_dual = counts.cumsum(0) - counts
    number = torch.arange(len(cube_of_dual), device=sdf.device) - first_dual[cubes[cube_of_dual]]
    surface_cases = cases.flatten()[cubes]
    return SurfaceCells(
        cubes=cubes,
        corners=cube_corners(cubes, resolution),
        cube_of_dual=cube_of_dual,
        cut=patch[surface_cases[cube_of_dual]] == number[:, None],
        quads=torch.cat(
            [_quads(axis, inside, cases, first_dual.view_as(cases), patch) for axis in range(3)]
        ),
    )


def shape_surface(
    cells: SurfaceCells,
    vertices: Float[Tensor, "v 3"],
    sdf: Float[Tensor, "v"],
    weights: CubeWeights | None = None,
    *,
    centred: bool = False,
) -> Surface:
    """Return the mesh of the cells: the quads of dual vertices, split into triangles.

    `vertices` is the grid, possibly deformed; `weights` are those of `cells.cubes`. With `centred`,
    for training, every quad is split into four triangles around a vertex whose position depends on
    the gammas; otherwise into two along the diagonal with the larger product of gammas.
    """
    weights = weights or _unit_weights(cells, sdf)
    ends = torch.tensor(CUBE_EDGES, device=sdf.device).T
    corners = cells.corners[cells.cube_of_dual]
    positions, distances = vertices.float()[corners], sdf.float()[corners]
    scaled = distances * weights.alpha[cells.cube_of_dual]
    crossings = _crossings(positions, scaled, cells.cut, ends)
    beta = (weights.beta[cells.cube_of_dual] * cells.cut)[..., None]
    dual = (beta * crossings).sum(dim=1) / beta.sum(dim=1)

    spread = torch.linalg.vector_norm(
        dual[:, None] - _crossings(positions, distances, cells.cut, ends), dim=-1
    )
    mean = (spread * cells.cut).sum(dim=1, keepdim=True) / cells.cut.sum(dim=1, keepdim=True)
    gamma = weights.gamma[cells.cube_of_dual][cells.quads]
    split_quads = _fans if centred else _halves
    mesh_vertices, faces = split_quads(dual, cells.quads, gamma)
    return Surface(vertices=mesh_vertices, faces=faces, deviation=(spread - mean).abs()[cells.cut])


def sdf_sign_loss(sdf: Float[Tensor, "b v"]) -> Float[Tensor, ""]:
    """Return the sign loss that reduces floaters and cavities (arXiv 2111.12503, equation 2).

    It is the mean over the grid's edges whose ends differ in sign (0 is a sign of its own) of the
    cross entropy between each end's distance as a logit and the other end's sign. Without such an
    edge it is 0.
    """
    side = round(sdf.shape[-1] ** (1 / 3))
    grid = sdf.float().unflatten(-1, (side, side, side))
    logits, targets = [], []
    for axis in (1, 2, 3):
        first, second = grid.narrow(axis, 0, side - 1), grid.narrow(axis, 1, side - 1)
        differs = first.sign() != second.sign()
        first, second = first[differs], second[differs]
        logits += [first, second]
        targets += [second > 0, first > 0]
    terms = torch.cat(logits)
    loss = F.binary_cross_entropy_with_logits(terms, torch.cat(targets).float(), reduction="sum")
    # Each edge adds two terms, and the mean is over edges.
    return loss / max(len(terms) / 2, 1)


def _corner_cases(inside: Bool[Tensor, "n n n"]) -> Int[Tensor, "r r r"]:
    """Return the case of every cube: one bit for each corner that is inside."""
    cubes = inside.shape[0] - 1
    cases = torch.zeros(cubes, cubes, cubes, dtype=torch.long, device=inside.device)
    for bit, (x, y, z) in enumerate(CUBE_CORNERS):
        cases += inside[x : x + cubes, y : y + cubes, z : z + cubes].long() << bit
    return cases


def _resolve(cases: Int[Tensor, "r r r"]) -> Int[Tensor, "r r r"]:
    """Return the cases, complemented where two problematic cubes share their ambiguous face."""
    problematic_face = torch.from_numpy(cube_cases().problematic_face).to(cases.device)[cases]
    cubes = (problematic_face >= 0).nonzero()
    offsets = torch.tensor(FACE_OFFSETS, device=cases.device)
    neighbours = cubes + offsets[problematic_face[tuple(cubes.T)].long()]
    in_grid = ((neighbours >= 0) & (neighbours < len(cases))).all(dim=1)
    neighbours = neighbours.clamp(0, len(cases) - 1)
    # A problematic cube has one ambiguous face, so a problematic neighbour shares that face.
    both = in_grid & (problematic_face[tuple(neighbours.T)] >= 0)
    resolved = cases.clone()
    resolved[tuple(cubes[both].T)] ^= 255
    return resolved


def cube_corners(cubes: Int[Tensor, "s"], resolution: int) -> Int[Tensor, "s 8"]:
    """Return the indices of the grid vertices at the corners of cubes."""
    side = resolution + 1
    x, y, z = cubes // resolution**2, cubes // resolution % resolution, cubes % resolution
    corners = torch.tensor(CUBE_CORNERS, device=cubes.device)
    offsets = (corners * torch.tensor([side**2, side, 1], device=cubes.device)).sum(dim=1)
    return (x * side**2 + y * side + z)[:, None] + offsets


def _quads(
    axis: int,
    inside: Bool[Tensor, "n n n"],
    cases: Int[Tensor, "r r r"],
    first_dual: Int[Tensor, "r r r"],
    patch: Int[Tensor, "256 12"],
) -> Int[Tensor, "q 4"]:
    """Return one quad around every cut edge along an axis, if the edge has four cubes."""
    cubes = len(cases)
    low, high = inside.narrow(axis, 0, cubes), inside.narrow(axis, 1, cubes)
    edges = (low != high).nonzero()
    across = [other for other in range(3) if other != axis]
    edges = edges[((edges[:, across] > 0) & (edges[:, across] < cubes)).all(dim=1)]
    duals = []
    # If all gammas are equal, the start of the ring determines the diagonal that splits a quad. It
    # is that of the published code, whose edges along y have the opposite direction.
    for ring_offset in _RING if axis != _Y else _RING[-1:] + _RING[:-1]:
        offset = torch.tensor((0, *ring_offset)).roll(axis)
        cube = tuple((edges + offset.to(edges.device)).T)
        edge = _edge_index(tuple((-offset).tolist()), axis)
        duals.append(first_dual[cube] + patch[cases[cube], edge])
    quads = torch.stack(duals, dim=1)
    # The surface faces the positive end of the axis if the edge's low end is inside.
    faces_positive = low[tuple(edges.T)]
    return torch.where(faces_positive[:, None], quads, quads.flip(1))


def _edge_index(corner: tuple[int, ...], axis: int) -> int:
    """Return the number of the edge that starts at a corner and runs along an axis."""
    first = CUBE_CORNERS.index(corner)
    return CUBE_EDGES.index((first, first | 1 << axis))


def _crossings(
    positions: Float[Tensor, "d 8 3"],
    distances: Float[Tensor, "d 8"],
    cut: Bool[Tensor, "d 12"],
    ends: Int[Tensor, "2 12"],
) -> Float[Tensor, "d 12 3"]:
    """Return the zero crossing on each cut edge; the values of other edges are meaningless."""
    first, second = distances[:, ends[0]], distances[:, ends[1]]
    # The ends of a cut edge differ in sign, but their difference can be too small to divide by.
    difference = (first - second).where(cut, 1.0)
    tiny = torch.finfo(difference.dtype).tiny
    fraction = first.where(cut, 0.0) / difference.where(difference.abs() >= tiny, tiny)
    return torch.lerp(positions[:, ends[0]], positions[:, ends[1]], fraction[..., None])


def _unit_weights(cells: SurfaceCells, like: Tensor) -> CubeWeights:
    count = len(cells.cubes)
    return CubeWeights(
        beta=like.new_ones(count, _NUM_EDGES),
        alpha=like.new_ones(count, len(CUBE_CORNERS)),
        gamma=like.new_ones(count),
    )


def _fans(dual: Tensor, quads: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Split each quad into four triangles around a mean of its diagonals' midpoints (eq. 8)."""
    even, odd = gamma[:, 0] * gamma[:, 2], gamma[:, 1] * gamma[:, 3]
    corners = dual[quads]
    midpoints = (corners[:, :2] + corners[:, 2:]) / 2
    weights = torch.stack([even, odd], dim=1)[..., None]
    centres = (weights * midpoints).sum(dim=1) / (weights.sum(dim=1) + _MIN_GAMMA)
    centre = torch.arange(len(dual), len(dual) + len(quads), device=quads.device)
    sides = torch.stack([quads, quads.roll(-1, dims=1)], dim=-1)
    fans = torch.cat([sides, centre[:, None, None].expand(-1, 4, 1)], dim=-1)
    return torch.cat([dual, centres]), fans.flatten(0, 1)


def _halves(dual: Tensor, quads: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Split each quad into two triangles along the diagonal with the larger product of gammas."""
    even, odd = gamma[:, 0] * gamma[:, 2], gamma[:, 1] * gamma[:, 3]
    along_even = quads[:, [0, 1, 2, 0, 2, 3]]
    along_odd = quads[:, [0, 1, 3, 1, 2, 3]]
    halves = torch.where((even > odd)[:, None], along_even, along_odd)
    return dual, halves.view(-1, 3)
