"""The transforms of nodes in double precision (glTF 2.0 specification, section 3.5.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from glb.accessors import accessor_numbers
from glb.document import Document, Item, extension
from glb.extensions import INSTANCING

__all__ = ["LAST_ROW", "Placements", "compose", "instance_matrices", "world_placements"]

_MIN_SPREAD = 1e-7
"""Width of an image over its length, below which it is a line."""
LAST_ROW = (0.0, 0, 0, 1)
"""Of every matrix. Some exporters write others, which viewers ignore; in a product they would move
and distort what is below."""


@dataclass(frozen=True, eq=False)
class Placements:
    """Matrices from local to world axes (y up), and bounds on the terms of their products.

    A position far from the origin loses precision even where a later transform moves it back.
    `reach`, the same product of absolute values, bounds every intermediate coordinate.
    """

    matrices: Float64[np.ndarray, "n 4 4"]
    reach: Float64[np.ndarray, "n 4 4"]

    def __getitem__(self, index: int | Sequence[int]) -> "Placements":
        """Return the placements of some nodes, always as a stack of matrices."""
        chosen = [index] if isinstance(index, int) else list(index)
        return Placements(self.matrices[chosen], self.reach[chosen])

    def then(self, local: Float64[np.ndarray, "#n 4 4"]) -> "Placements":
        """Return the placements of something that is placed by `local` below these."""
        # Infinite positions are refused where they are used.
        with np.errstate(over="ignore", invalid="ignore"):
            return Placements(self.matrices @ local, self.reach @ np.abs(local))

    def farthest(self, positions: Float64[np.ndarray, "v 3"]) -> Float64[np.ndarray, "n"]:
        """Return a bound on all coordinates in the computation of the placed positions."""
        corner = np.append(np.abs(positions).max(axis=0, initial=0), 1.0)
        bounds: np.ndarray = (self.reach @ corner)[:, :3].max(axis=1)
        return bounds

    def has_area(self) -> Bool[np.ndarray, "n"]:
        """Return which matrices do not flatten a surface to a line or a point."""
        linear = self.matrices[:, :3, :3]
        largest = np.abs(linear).max(axis=(1, 2), initial=0)
        known = (largest > 0) & np.isfinite(largest)
        scaled = linear[known] / largest[known, None, None]
        spread: np.ndarray = ~np.isfinite(largest)  # overflow is refused where points are placed
        spread[known] = np.linalg.svd(scaled, compute_uv=False)[:, 1] > _MIN_SPREAD
        return spread


def world_placements(document: Document) -> Placements:
    """Return the placement of every node. glb.node_tree has made them trees."""
    nodes = document.items("nodes")
    local = _local_matrices(nodes)
    world = Placements(local.copy(), np.abs(local))
    children = {child for node in nodes for child in node.get("children") or []}
    level = [index for index in range(len(nodes)) if index not in children]
    while level:
        pairs = [(index, child) for index in level for child in nodes[index].get("children") or []]
        level = [child for _, child in pairs]
        if level:
            placed = world[[parent for parent, _ in pairs]].then(local[level])
            world.matrices[level], world.reach[level] = placed.matrices, placed.reach
    return world


def instance_matrices(document: Document, node: Item) -> Float64[np.ndarray, "n 4 4"] | None:
    """Return the local matrices of a node's GPU instances; None for a node without them.

    Instances with only attributes of their own, such as numbers, are all at the node's place: one.
    """
    instancing = extension(node, INSTANCING)
    if instancing is None:
        return None
    attributes = instancing["attributes"]
    arrays = {
        name: accessor_numbers(document, attributes[name]).astype(np.float64)
        for name in ("TRANSLATION", "ROTATION", "SCALE")
        if attributes.get(name) is not None
    }
    count = len(next(iter(arrays.values()))) if arrays else int(bool(attributes))
    return compose(
        arrays.get("TRANSLATION", np.zeros((count, 3))),
        arrays.get("ROTATION", np.tile([0.0, 0, 0, 1], (count, 1))),
        arrays.get("SCALE", np.ones((count, 3))),
    )


def compose(
    translation: Float64[np.ndarray, "n 3"],
    rotation: Float64[np.ndarray, "n 4"],
    scale: Float64[np.ndarray, "n 3"],
) -> Float64[np.ndarray, "n 4 4"]:
    """Return translation * rotation * scale; rotations are quaternions (x, y, z, w) of any length.

    A quaternion of length 0 rotates nothing, as in viewers.
    """
    largest = np.abs(rotation).max(axis=1, keepdims=True)
    unit = np.where(largest > 0, rotation / np.where(largest > 0, largest, 1), [0.0, 0, 0, 1])
    x, y, z, w = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrices = np.tile(np.eye(4), (len(scale), 1, 1))
    matrices[:, :3, :3] = np.moveaxis(np.array(rows), -1, 0) * scale[:, None, :]
    matrices[:, :3, 3] = translation
    return matrices


def _local_matrices(nodes: Sequence[Item]) -> Float64[np.ndarray, "n 4 4"]:
    def column(name: str, default: Sequence[float]) -> np.ndarray:
        values = [(node.get(name) or default)[: len(default)] for node in nodes]
        return np.array(values, dtype=np.float64).reshape(len(nodes), len(default))

    matrices = compose(
        column("translation", (0, 0, 0)),
        column("rotation", (0, 0, 0, 1)),
        column("scale", (1,) * 3),
    )
    for index, node in enumerate(nodes):
        if node.get("matrix"):
            # The file lists columns.
            matrices[index] = np.array(node["matrix"][:16], dtype=np.float64).reshape(4, 4).T
    matrices[:, 3] = LAST_ROW
    return matrices
