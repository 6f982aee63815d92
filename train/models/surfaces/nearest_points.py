"""Exact nearest neighbours between two point sets, and their squared distances with gradients."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

__all__ = [
    "MAX_BYTES",
    "NearestPoints",
    "chunked_search",
    "nearest_points",
    "select_points",
    "tree_search",
]

MAX_BYTES = 1 << 28
"""Bound of the temporary memory of `chunked_search`, in bytes: 256 MiB. One point and all targets
of a batch are always compared at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NearestPoints:
    """Nearest neighbours between points and targets, in both directions."""

    target_index: Int[Tensor, "b n"]
    """Index of each point's nearest target."""
    point_index: Int[Tensor, "b m"]
    """Index of each target's nearest point."""
    to_target: Float[Tensor, "b n"]
    """Squared distance from each point to its nearest target."""
    to_points: Float[Tensor, "b m"]
    """Squared distance from each target to its nearest point."""


def nearest_points(
    points: Float[Tensor, "b n 3"], targets: Float[Tensor, "b m 3"]
) -> NearestPoints:
    """Find nearest neighbours in both directions.

    Squared distances have gradients for both sets; indices have none. A coordinate that is not
    finite gives a distance that is not finite. The search uses k-d trees on the CPU and chunks of
    the distance matrix on other devices, which need at most `MAX_BYTES`. Both are exact, so their
    results differ only between neighbours at equal distances. Raises ValueError if a set is empty.
    """
    if 0 in (points.shape[1], targets.shape[1]):
        raise ValueError("cannot match point sets: a set without points has no nearest point")
    search = tree_search if points.device.type == "cpu" else chunked_search
    target_index, point_index = search(points.detach(), targets.detach())
    return NearestPoints(
        target_index=target_index,
        point_index=point_index,
        to_target=_squared(points - select_points(targets, target_index)),
        to_points=_squared(targets - select_points(points, point_index)),
    )


def select_points(
    values: Float[Tensor, "b n 3"], index: Int[Tensor, "b m"]
) -> Float[Tensor, "b m 3"]:
    """Return the rows `index` of each set.

    The gradient of an embedding adds in a fixed order on every device. That of `gather` does not on
    a GPU, and that of indexing not on a CPU with several threads.
    """
    starts = values.shape[1] * torch.arange(len(values), device=values.device)
    return F.embedding(starts[:, None] + index, values.flatten(0, 1))


def tree_search(
    points: Float[Tensor, "b n 3"], targets: Float[Tensor, "b m 3"]
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b m"]]:
    """Return the index of each point's nearest target and vice versa, by k-d trees on the CPU."""
    forward, backward = [], []
    for own, other in zip(_finite(points), _finite(targets), strict=True):
        forward.append(torch.from_numpy(cKDTree(other).query(own)[1]))
        backward.append(torch.from_numpy(cKDTree(own).query(other)[1]))
    return torch.stack(forward), torch.stack(backward)


def chunked_search(
    points: Float[Tensor, "b n 3"], targets: Float[Tensor, "b m 3"], max_bytes: int = MAX_BYTES
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b m"]]:
    """Return the same as `tree_search` on any device, from chunks of the distance matrix.

    A chunk has the distances of some points to all targets, and takes at most `max_bytes`.
    Distances are sums of squared differences: |a|^2 + |b|^2 - 2ab would be wrong by 1e-7 |a|^2,
    which is more than the squared distance of close points.
    """
    batch, num_targets = len(points), targets.shape[1]
    # Two buffers are alive at once: the distances, and the differences along an axis.
    rows = max(1, max_bytes // (2 * points.element_size() * batch * num_targets))
    forward: list[Tensor] = []
    best = points.new_full((batch, num_targets), torch.inf)
    backward = torch.zeros_like(best, dtype=torch.int64)
    for start in range(0, points.shape[1], rows):
        distances = _distance_matrix(points[:, start : start + rows], targets)
        forward.append(distances.argmin(dim=2))
        nearest = distances.min(dim=1)
        backward = torch.where(nearest.values < best, nearest.indices + start, backward)
        best = torch.minimum(nearest.values, best)
        del distances
    return torch.cat(forward, dim=1), backward


def _distance_matrix(
    points: Float[Tensor, "b r 3"], targets: Float[Tensor, "b m 3"]
) -> Float[Tensor, "b r m"]:
    total = points.new_zeros(())
    for axis in range(3):
        difference = points[:, :, None, axis] - targets[:, None, :, axis]
        total = difference.square_() if axis == 0 else total.add_(difference.square_())
        del difference
    return total


def _squared(differences: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
    return differences.square().sum(dim=-1)


def _finite(points: Float[Tensor, "b n 3"]) -> Float[np.ndarray, "b n 3"]:
    """Return points with 0 for coordinates that are not finite, which trees do not accept."""
    return np.nan_to_num(points.double().numpy(), nan=0.0, posinf=0.0, neginf=0.0)
