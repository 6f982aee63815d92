"""FlexiCubes: a mesh out of a signed distance field, differentiable in everything that shapes it.

Shen et al. 2023 (arXiv 2308.03156), on a regular grid of r^3 cubes. Vertices and cubes are counted
with x slowest and z fastest; a vertex is inside where its distance is below 0. Extraction has two
halves: `find_surface` looks at signs alone, `shape_surface` places vertices and carries gradients.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from train.models.surfaces.cube_cases import CUBE_CORNERS, CUBE_EDGES, FACE_STEPS, cube_cases

__all__ = [
    "CubeWeights",
    "Surface",
    "SurfaceCells",
    "cube_corners",
    "find_surface",
    "grid_vertices",
    "sdf_sign_loss",
    "shape_surface",
]

_NUM_EDGES = len(CUBE_EDGES)
_MIN_GAMMA = 1e-8
# The four cubes at an edge, by their offsets along the two axes that follow the edge's own in the
# circle x, y, z: counter-clockwise, seen from where the edge points to.
_RING = ((0, -1), (0, 0), (-1, 0), (-1, -1))
_Y = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class CubeWeights:
    """FlexiCubes' parameters of some cubes; without them all are 1."""

    beta: Float[Tensor, "s 12"]
    """Pull of each edge's crossing on its dual vertex, in the order of CUBE_EDGES."""
    alpha: Float[Tensor, "s 8"]
    """Factor on the distance at each corner."""
    gamma: Float[Tensor, "s"]
    """Pull of each corner of a quad on the place where it is split."""

    @classmethod
    def from_raw(cls, raw: Float[Tensor, "s 21"], scale: float) -> "CubeWeights":
        """From a network's outputs: beta and alpha in 1 +- scale, gamma in (1 +- scale) / 2."""
        beta, alpha, gamma = raw.float().split([_NUM_EDGES, len(CUBE_CORNERS), 1], dim=-1)
        return cls(
            beta=beta.tanh() * scale + 1,
            alpha=alpha.tanh() * scale + 1,
            gamma=gamma[..., 0].sigmoid() * scale + (1 - scale) / 2,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceCells:
    """Where a surface runs through the grid: s cubes, d dual vertices, q quads."""

    cubes: Int[Tensor, "s"]
    """The cubes with surface, ascending."""
    corners: Int[Tensor, "s 8"]
    """Their grid vertices."""
    cube_of_dual: Int[Tensor, "d"]
    """Row in `cubes` of each dual vertex."""
    cut: Bool[Tensor, "d 12"]
    """The edges of that cube whose crossings make up the dual vertex."""
    quads: Int[Tensor, "q 4"]
    """Dual vertices, counter-clockwise seen from outside."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """A triangle mesh, and what its regularizer needs."""

    vertices: Float[Tensor, "n 3"]
    faces: Int[Tensor, "m 3"]
    """Counter-clockwise seen from outside."""
    deviation: Float[Tensor, "p"]
    """L_dev: per dual vertex and crossing, how far their distance is from that vertex's mean."""


def grid_vertices(
    resolution: int, size: float, device: torch.device | None = None
) -> Float[Tensor, "v 3"]:
    """The corners of resolution^3 cubes that fill a cube of side `size` around the origin."""
    axis = torch.linspace(-size / 2, size / 2, resolution + 1, device=device)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).flatten(0, 2)


def find_surface(sdf: Float[Tensor, "v"], resolution: int) -> SurfaceCells:
    """Which cubes the surface runs through, and how. Nothing is differentiable here.

    A surface that leaves the grid ends at the middle of its last cubes: the mesh is open there.
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
    """The mesh of the cells: dual vertices joined to quads, quads cut into triangles.

    `vertices` is the grid, possibly deformed; `weights` are those of `cells.cubes`. `centred`, for
    training, cuts every quad into four triangles around a vertex that the gammas place; otherwise
    it is cut in two along the diagonal with the larger product of gammas.
    """
    weights = weights or _unit_weights(cells, sdf)
    ends = torch.tensor(CUBE_EDGES, device=sdf.device).T
    corners = cells.corners[cells.cube_of_dual]
    places, distances = vertices.float()[corners], sdf.float()[corners]
    scaled = distances * weights.alpha[cells.cube_of_dual]
    crossings = _crossings(places, scaled, cells.cut, ends)
    pull = (weights.beta[cells.cube_of_dual] * cells.cut)[..., None]
    dual = (pull * crossings).sum(dim=1) / pull.sum(dim=1)

    apart = torch.linalg.vector_norm(
        dual[:, None] - _crossings(places, distances, cells.cut, ends), dim=-1
    )
    mean = (apart * cells.cut).sum(dim=1, keepdim=True) / cells.cut.sum(dim=1, keepdim=True)
    gamma = weights.gamma[cells.cube_of_dual][cells.quads]
    cut_quads = _fans if centred else _halves
    mesh_vertices, faces = cut_quads(dual, cells.quads, gamma)
    return Surface(vertices=mesh_vertices, faces=faces, deviation=(apart - mean).abs()[cells.cut])


def sdf_sign_loss(sdf: Float[Tensor, "b v"]) -> Float[Tensor, ""]:
    """Cross entropy that keeps floaters and hollows down (nvdiffrec, arXiv 2111.12503, eq. 2).

    Over the edges of the grid whose ends differ in sign (0 is a sign of its own): each end's
    distance as a logit against the other's sign. Without such an edge it is 0.
    """
    side = round(sdf.shape[-1] ** (1 / 3))
    grid = sdf.float().unflatten(-1, (side, side, side))
    logits, targets = [], []
    for axis in (1, 2, 3):
        first, second = grid.narrow(axis, 0, side - 1), grid.narrow(axis, 1, side - 1)
        differ = first.sign() != second.sign()
        first, second = first[differ], second[differ]
        logits += [first, second]
        targets += [second > 0, first > 0]
    both = torch.cat(logits)
    loss = F.binary_cross_entropy_with_logits(both, torch.cat(targets).float(), reduction="sum")
    # Each edge adds two terms, and the mean is over edges.
    return loss / max(len(both) / 2, 1)


def _corner_cases(inside: Bool[Tensor, "n n n"]) -> Int[Tensor, "r r r"]:
    """The case of every cube: a bit for each corner that is inside."""
    cubes = inside.shape[0] - 1
    cases = torch.zeros(cubes, cubes, cubes, dtype=torch.long, device=inside.device)
    for bit, (x, y, z) in enumerate(CUBE_CORNERS):
        cases += inside[x : x + cubes, y : y + cubes, z : z + cubes].long() << bit
    return cases


def _resolve(cases: Int[Tensor, "r r r"]) -> Int[Tensor, "r r r"]:
    """The cases, complemented where two doubtful cubes share their ambiguous face."""
    doubtful_face = torch.from_numpy(cube_cases().doubtful_face).to(cases.device)[cases]
    places = (doubtful_face >= 0).nonzero()
    steps = torch.tensor(FACE_STEPS, device=cases.device)
    beyond = places + steps[doubtful_face[tuple(places.T)].long()]
    in_grid = ((beyond >= 0) & (beyond < len(cases))).all(dim=1)
    neighbours = beyond.clamp(0, len(cases) - 1)
    # A doubtful cube has one ambiguous face, so a doubtful neighbour's is the one they share.
    both = in_grid & (doubtful_face[tuple(neighbours.T)] >= 0)
    resolved = cases.clone()
    resolved[tuple(places[both].T)] ^= 255
    return resolved


def cube_corners(cubes: Int[Tensor, "s"], resolution: int) -> Int[Tensor, "s 8"]:
    """The grid vertices at the corners of cubes."""
    side = resolution + 1
    x, y, z = cubes // resolution**2, cubes // resolution % resolution, cubes % resolution
    corners = torch.tensor(CUBE_CORNERS, device=cubes.device)
    steps = (corners * torch.tensor([side**2, side, 1], device=cubes.device)).sum(dim=1)
    return (x * side**2 + y * side + z)[:, None] + steps


def _quads(
    axis: int,
    inside: Bool[Tensor, "n n n"],
    cases: Int[Tensor, "r r r"],
    first_dual: Int[Tensor, "r r r"],
    patch: Int[Tensor, "256 12"],
) -> Int[Tensor, "q 4"]:
    """One quad around every cut edge along an axis that has four cubes."""
    cubes = len(cases)
    low, high = inside.narrow(axis, 0, cubes), inside.narrow(axis, 1, cubes)
    edges = (low != high).nonzero()
    across = [other for other in range(3) if other != axis]
    edges = edges[((edges[:, across] > 0) & (edges[:, across] < cubes)).all(dim=1)]
    duals = []
    # Where all gammas are equal, the start of the ring decides which way a quad is halved. It is
    # the published code's, whose edges run against the y axis.
    for offset in _RING if axis != _Y else _RING[-1:] + _RING[:-1]:
        step = torch.tensor((0, *offset)).roll(axis)
        cube = tuple((edges + step.to(edges.device)).T)
        edge = _edge_at(tuple((-step).tolist()), axis)
        duals.append(first_dual[cube] + patch[cases[cube], edge])
    quads = torch.stack(duals, dim=1)
    # Seen from where the axis points to, the surface faces us if its far end is outside.
    towards = low[tuple(edges.T)]
    return torch.where(towards[:, None], quads, quads.flip(1))


def _edge_at(corner: tuple[int, ...], axis: int) -> int:
    """The number of the edge that starts at a corner and runs along an axis."""
    first = CUBE_CORNERS.index(corner)
    return CUBE_EDGES.index((first, first | 1 << axis))


def _crossings(
    places: Float[Tensor, "d 8 3"],
    distances: Float[Tensor, "d 8"],
    cut: Bool[Tensor, "d 12"],
    ends: Int[Tensor, "2 12"],
) -> Float[Tensor, "d 12 3"]:
    """Where the distance is 0 along each cut edge; other edges get a place of no meaning."""
    first, second = distances[:, ends[0]], distances[:, ends[1]]
    # The ends of a cut edge differ in sign, but their difference may still be too small to divide.
    span = (first - second).where(cut, 1.0)
    tiny = torch.finfo(span.dtype).tiny
    share = first.where(cut, 0.0) / span.where(span.abs() >= tiny, tiny)
    return torch.lerp(places[:, ends[0]], places[:, ends[1]], share[..., None])


def _unit_weights(cells: SurfaceCells, like: Tensor) -> CubeWeights:
    count = len(cells.cubes)
    return CubeWeights(
        beta=like.new_ones(count, _NUM_EDGES),
        alpha=like.new_ones(count, len(CUBE_CORNERS)),
        gamma=like.new_ones(count),
    )


def _fans(dual: Tensor, quads: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Four triangles a quad, around a mean of its diagonals' middles (eq. 8 of the paper)."""
    even, odd = gamma[:, 0] * gamma[:, 2], gamma[:, 1] * gamma[:, 3]
    corners = dual[quads]
    middles = (corners[:, :2] + corners[:, 2:]) / 2
    pull = torch.stack([even, odd], dim=1)[..., None]
    centres = (pull * middles).sum(dim=1) / (pull.sum(dim=1) + _MIN_GAMMA)
    centre = torch.arange(len(dual), len(dual) + len(quads), device=quads.device)
    rims = torch.stack([quads, quads.roll(-1, dims=1)], dim=-1)
    fans = torch.cat([rims, centre[:, None, None].expand(-1, 4, 1)], dim=-1)
    return torch.cat([dual, centres]), fans.flatten(0, 1)


def _halves(dual: Tensor, quads: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Two triangles a quad."""
    even, odd = gamma[:, 0] * gamma[:, 2], gamma[:, 1] * gamma[:, 3]
    along_even = quads[:, [0, 1, 2, 0, 2, 3]]
    along_odd = quads[:, [0, 1, 3, 1, 2, 3]]
    halves = torch.where((even > odd)[:, None], along_even, along_odd)
    return dual, halves.view(-1, 3)
