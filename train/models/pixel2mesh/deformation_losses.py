"""The training losses of Pixel2Mesh (Wang et al. 2018, section 3.4), term by term.

Every term is summed over the three meshes. Means over edges run over the list of the released code:
each edge in both directions, and an edge of length 0 from each vertex to itself. A mesh with e
edges and v vertices therefore has a factor 2e / (2e + v) compared with a mean over its edges: 0.856
for 156 vertices, 0.857 for 618 and 2466.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.config import Config, NonNegativeFloat
from train.models.pixel2mesh.pixel2mesh import Deformation
from train.models.pixel2mesh.template_mesh import MeshLevel
from train.models.surfaces.nearest_points import nearest_points, select_points

__all__ = ["PRESETS", "DeformationLossConfig", "deformation_loss"]


_RELEASED = {
    "chamfer": 1.0,
    "chamfer_reverse": 0.55,
    "normal": 1.6e-4,
    "laplace": 0.5,
    "laplace_first": 0.2,
    "move": 0.033,
    "edge": 0.1,
}
PRESETS: Mapping[str, Mapping[str, float]] = {
    "released": _RELEASED,
    "paper": _RELEASED
    | {"chamfer_reverse": 1.0, "laplace": 0.3, "laplace_first": 1.0, "move": 0.0},
}
"""`released`: both configurations of the PyTorch code, whose models have the best published scores.
`paper`: section 4 of the paper."""


class DeformationLossConfig(Config):
    """Weights of the loss terms; those that are not given are the preset's."""

    preset: Literal["released", "paper"] = "released"
    """Weights of the released PyTorch code, or of the paper."""
    chamfer: NonNegativeFloat | None = None
    """Weight of the Chamfer distance, which is squared (1 in both presets)."""
    chamfer_reverse: NonNegativeFloat | None = None
    """Factor of the distance from predicted to true points in the Chamfer distance (released 0.55,
    paper 1)."""
    normal: NonNegativeFloat | None = None
    """Weight of |cos| between edges and the nearest true normals (1.6e-4 in both presets)."""
    laplace: NonNegativeFloat | None = None
    """Weight of the squared change of Laplacian coordinates (released 0.5, paper 0.3)."""
    laplace_first: NonNegativeFloat | None = None
    """Factor of the first block in the Laplacian term (released 0.2, paper 1)."""
    move: NonNegativeFloat | None = None
    """Weight of the squared displacement in blocks 2 and 3 (released 0.033, paper 0)."""
    edge: NonNegativeFloat | None = None
    """Weight of the mean squared length of edges (0.1 in both presets)."""

    def weights(self) -> dict[str, float]:
        """Return the preset's weights with those that are given."""
        given = {name: getattr(self, name) for name in PRESETS[self.preset]}
        changes = {name: value for name, value in given.items() if value is not None}
        return {**PRESETS[self.preset], **changes}


def deformation_loss(
    deformation: Deformation,
    levels: Iterable[MeshLevel],
    points: Float[Tensor, "b m 3"],
    normals: Float[Tensor, "b m 3"],
    config: DeformationLossConfig,
) -> dict[str, Float[Tensor, ""]]:
    """Return the unweighted terms by name, and their weighted sum as `loss`.

    `chamfer`, `normal`, `laplace`, `move` and `edge` are sums over the meshes, with the factors of
    the second Chamfer direction and of the first block. `points` are on the true surface with its
    `normals`, of any length and sign, in the frame of the meshes.
    """
    weights = config.weights()
    points, normals = points.float(), F.normalize(normals.float(), dim=-1)
    sums: dict[str, Tensor] = {}
    rows = zip(deformation.meshes, deformation.before, levels, strict=True)
    for block, (mesh, before, level) in enumerate(rows):
        mesh, before = mesh.float(), before.float()
        terms = _surface_terms(mesh, level, points, normals, weights["chamfer_reverse"])
        change = level.laplacian(mesh - before).square().sum(dim=-1).mean()
        terms["laplace"] = change if block else weights["laplace_first"] * change
        if block:
            terms["move"] = (mesh - before).square().sum(dim=-1).mean()
        for name, value in terms.items():
            sums[name] = sums[name] + value if name in sums else value
    weighted = [weights[name] * value for name, value in sums.items()]
    return {"loss": torch.stack(weighted).sum(), **sums}


def _surface_terms(
    mesh: Float[Tensor, "b v 3"],
    level: MeshLevel,
    points: Float[Tensor, "b m 3"],
    normals: Float[Tensor, "b m 3"],
    reverse: float,
) -> dict[str, Tensor]:
    """Return the terms that depend on a mesh and the true surface."""
    near = nearest_points(mesh, points)
    vectors = level.sides(mesh)
    directions = F.normalize(vectors, dim=-1)
    own = select_points(normals, near.target_index)
    # An edge counts in both directions, with the normal at either end.
    cosines = [(directions * own[:, end]).sum(dim=-1).abs().sum() for end in level.edges.T]
    count = len(mesh) * (2 * len(level.edges) + level.num_vertices)
    return {
        "chamfer": near.to_points.mean() + reverse * near.to_target.mean(),
        "normal": torch.stack(cosines).sum() / count,
        "edge": 2 * vectors.square().sum() / count,
    }
