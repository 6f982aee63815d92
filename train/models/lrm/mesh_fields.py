"""The fields of the mesh variant, on a regular grid: distance, deformation, weights, colour.

On a grid, each of the three planes is sampled at r^2 positions instead of r^3; the features of a
vertex are three of these samples, concatenated. Module names are the keys of the published
checkpoints.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from train.models.lrm.mlp import in_float32, point_mlp, without_autocast
from train.models.lrm.nerf import activate_rgb
from train.models.lrm.triplane import sample_planes
from train.models.recompute import recompute_in_backward
from train.models.surfaces.cube_cases import CUBE_CORNERS, CUBE_EDGES

__all__ = ["GridFeatures", "MeshDecoder", "in_chunks"]

_WEIGHTS_PER_CUBE = len(CUBE_EDGES) + len(CUBE_CORNERS) + 1
_WEIGHT_FACTOR = 0.1
"""Factor on the weight network's output, as released."""


class MeshDecoder(nn.Module):
    """Networks from triplane features to the fields of the mesh variant, evaluated in float32.

    Deformation and raw weights are initially zero, so the first surface depends on distances only.
    """

    def __init__(self, features: int, width: int, num_hidden_layers: int) -> None:
        super().__init__()
        self.net_sdf = point_mlp(features, width, num_hidden_layers, 1)
        self.net_rgb = point_mlp(features, width, num_hidden_layers, 3)
        self.net_deformation = point_mlp(features, width, num_hidden_layers, 3)
        self.net_weight = point_mlp(
            len(CUBE_CORNERS) * features, width, num_hidden_layers, _WEIGHTS_PER_CUBE
        )
        for net in (self.net_deformation, self.net_weight):
            nn.init.zeros_(net[-1].weight)  # type: ignore[arg-type]

    def rgb(self, features: Float[Tensor, "*n f"]) -> Float[Tensor, "*n 3"]:
        """Return RGB in [-0.001, 1.001]."""
        return activate_rgb(in_float32(self.net_rgb, features))

    def deformation(
        self, features: Float[Tensor, "*n f"], resolution: int
    ) -> Float[Tensor, "*n 3"]:
        """Return the displacement of vertices of a grid of resolution^3 cubes, in world units."""
        return in_float32(self.net_deformation, features).tanh() / (4 * resolution)

    def weights(self, corner_features: Float[Tensor, "*s 8 f"]) -> Float[Tensor, "*s 21"]:
        """Return the raw FlexiCubes weights of cubes, from the features at their corners."""
        return in_float32(self.net_weight, corner_features.flatten(-2)) * _WEIGHT_FACTOR

    def colour(
        self, planes: Float[Tensor, "3 c r r"], points: Float[Tensor, "n 3"]
    ) -> Float[Tensor, "n 3"]:
        """Return the RGB of world points, in [-0.001, 1.001]."""
        return self.rgb(sample_planes(planes[None], points[None])[0])


class GridFeatures:
    """Triplane features of one object at the vertices of a grid, stored per plane."""

    def __init__(self, planes: Float[Tensor, "3 c r r"], axis: Float[Tensor, "n"]) -> None:
        """Sample the planes; `axis` has the grid's coordinates, the same along x, y and z."""
        side = len(axis)
        # The planes' (row, column) axes are (y, x), (z, x) and (y, z), as in `sample_planes`.
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        positions = torch.stack([columns, rows], dim=-1).expand(3, side, side, 2)
        self._side = side
        self._sampled: Float[Tensor, "3 c n n"] = F.grid_sample(
            planes.float(), positions, mode="bilinear", align_corners=False
        )

    def at(self, vertices: Int[Tensor, "*k"]) -> Float[Tensor, "*k f"]:
        """Return the features of grid vertices, given by their indices."""
        side = self._side
        x, y, z = vertices // side**2, vertices // side % side, vertices % side
        xy, xz, zy = self._sampled.movedim(1, -1)
        return torch.cat([xy[y, x], xz[z, x], zy[y, z]], dim=-1)

    def evaluate(self, net: nn.Sequential, points_per_chunk: int, recompute: bool) -> Tensor:
        """Return a network's scalar output at every vertex, shape `n^3`.

        The network is evaluated slab by slab along x. Its first layer is linear, so it is applied
        to each plane once, and the three results are added for each vertex.
        """
        first, *rest = net
        assert isinstance(first, nn.Linear)
        parts = first.weight.float().chunk(3, dim=1)
        with without_autocast(self._sampled.device):
            xy, xz, zy = (
                torch.einsum("oc,chw->hwo", part, plane)
                for part, plane in zip(parts, self._sampled, strict=True)
            )

        def slab(xs: Tensor) -> Tensor:
            # Axes x, y, z, hidden.
            hidden = xy[:, xs].movedim(1, 0)[:, :, None] + xz[:, xs].movedim(1, 0)[:, None]
            return in_float32(rest, hidden + zy + first.bias.float())[..., 0]

        xs = torch.arange(self._side, device=self._sampled.device)
        slabs = in_chunks(slab, xs, max(points_per_chunk // self._side**2, 1), recompute)
        return torch.cat(list(slabs)).flatten()


def in_chunks(
    work: Callable[[Tensor], Tensor], items: Tensor, size: int, recompute: bool
) -> Iterator[Tensor]:
    """Yield `work` of chunks of `size` items; `recompute`: with activation checkpointing."""
    run = recompute_in_backward(work, recompute)
    for chunk in items.split(size):
        yield run(chunk)
