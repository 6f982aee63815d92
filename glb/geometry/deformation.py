"""Morph targets and skins in their stored pose (glTF 2.0 specification, sections 3.7.2 and 3.7.3).

Joints have the places that the file's nodes give them; animations are not applied.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64

from glb.accessors import accessor_numbers
from glb.document import Document
from glb.glb_error import malformed
from glb.placements import LAST_ROW, Placements
from glb.primitive_arrays import joint_sets

__all__ = ["apply_targets", "place", "place_by_joints", "skin_placements"]

_CHUNK = 400_000
"""Matrices per step, of all joints of some vertices, which bounds their memory."""

Values = Mapping[str, Float64[np.ndarray, "v _"]]
Placed = tuple[Float64[np.ndarray, "v 3"], Float64[np.ndarray, "v 3"], Bool[np.ndarray, "#v"]]
"""Positions, normals (of any length), and where a reflection reverses the front of the faces."""


def apply_targets(
    attributes: Values, targets: Sequence[Values], weights: Sequence[float]
) -> Values:
    """Return the attributes with the weighted differences of the morph targets added."""
    result = dict(attributes)
    for target, weight in zip(targets, weights, strict=False):
        for name, difference in target.items():
            if weight and name in result:
                result[name] = result[name] + float(weight) * difference
    return result


def skin_placements(document: Document, skin: int, world: Placements) -> Placements:
    """Return the placement of a mesh by each joint of a skin, from the mesh's bind pose."""
    item = document.item("skins", skin)
    joints = world[item["joints"]]
    if item.get("inverseBindMatrices") is None:
        return joints
    values = accessor_numbers(document, item["inverseBindMatrices"], len(item["joints"]))
    inverse_bind = values.reshape(-1, 4, 4).transpose(0, 2, 1)
    inverse_bind[:, 3] = LAST_ROW
    return joints[range(len(values))].then(inverse_bind)


def place(attributes: Values, matrix: Float64[np.ndarray, "4 4"]) -> Placed:
    """Return the positions and normals of a rigid primitive in world axes (y up)."""
    linear = matrix[:3, :3]
    positions = attributes["POSITION"] @ linear.T + matrix[:3, 3]
    mirrored = np.array([np.linalg.det(linear / max(np.abs(linear).max(), 1e-300)) < 0])
    normals = attributes.get("NORMAL")
    if normals is None:
        return positions, np.zeros_like(positions), mirrored
    return positions, _turn(normals, np.broadcast_to(linear, (1, 3, 3))), mirrored


def place_by_joints(attributes: Values, joints: Placements) -> Placed:
    """Return the positions and normals of a skinned primitive in world axes (y up).

    Weights are scaled to a sum of 1; a vertex without weights follows its first joint, as in
    viewers. Raises GlbError (`malformed`) for a joint that does not exist.
    """
    numbers, weights = _joints_and_weights(attributes)
    # Joints without a weight may have any number.
    numbers = np.where(weights > 0, numbers, 0)
    # The parser cannot check the joints of compressed data.
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) >= len(joints.matrices):
        raise malformed(f"a joint is out of range for a skin of {len(joints.matrices)} joints")
    matrices = joints.matrices[:, :3, :]
    positions = np.empty_like(attributes["POSITION"])
    normals = np.zeros_like(positions)
    mirrored = np.zeros(len(positions), dtype=bool)
    chunk = max(_CHUNK // weights.shape[1], 1)
    for start in range(0, len(positions), chunk):
        part = slice(start, start + chunk)
        blended = np.einsum("vk,vkij->vij", weights[part], matrices[numbers[part]])
        linear = blended[..., :3]
        local = attributes["POSITION"][part]
        positions[part] = (linear @ local[..., None])[..., 0] + blended[..., 3]
        if "NORMAL" in attributes:
            normals[part] = _turn(attributes["NORMAL"][part], linear)
        mirrored[part] = np.linalg.det(linear) < 0
    return positions, normals, mirrored


def _joints_and_weights(attributes: Values) -> tuple[np.ndarray, np.ndarray]:
    sets = joint_sets(attributes)
    numbers = np.concatenate([attributes[f"JOINTS_{name}"] for name in sets], axis=1)
    weights = np.concatenate([attributes[f"WEIGHTS_{name}"] for name in sets], axis=1).clip(0)
    total = weights.sum(axis=1, keepdims=True)
    first = np.eye(1, weights.shape[1])
    shares = np.where(total > 0, weights / np.where(total > 0, total, 1), first)
    return numbers.astype(np.int64), shares


def _turn(
    normals: Float64[np.ndarray, "v 3"], linear: Float64[np.ndarray, "#v 3 3"]
) -> Float64[np.ndarray, "v 3"]:
    """Return normals under a linear map: its cofactors keep them perpendicular to the surface.

    The inverse transpose is the same up to a factor, but does not exist for flattening maps.
    """
    scale = np.abs(linear).max(axis=(1, 2), keepdims=True)
    x, y, z = np.moveaxis(linear / np.where(scale > 0, scale, 1), -1, 0)
    cofactors = np.stack([np.cross(y, z), np.cross(z, x), np.cross(x, y)], axis=-1)
    sign = np.where((x * cofactors[..., 0]).sum(axis=-1) < 0, -1.0, 1.0)
    return (cofactors @ normals[..., None])[..., 0] * sign[:, None]
