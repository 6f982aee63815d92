"""Checks of the skins of visible meshes, and of the joints that their vertices refer to."""

from collections.abc import Iterable

import numpy as np

from core.failures import FailureKind
from glb.accessors import accessor_values, require_type
from glb.document import Document, Item, extension
from glb.extensions import DRACO
from glb.glb_error import GlbError, malformed
from glb.node_tree import NodeTree, skins_of_meshes
from glb.primitive_arrays import joint_sets
from glb.primitives import compressed_attributes

__all__ = ["check_skins"]

_FLOAT = 5126


def check_skins(document: Document, tree: NodeTree) -> None:
    """Check the skins of visible meshes. Raises GlbError (`malformed`)."""
    meshes = skins_of_meshes(document, tree.shown)
    num_joints = _num_joints(document, set().union(*meshes.values()))
    for mesh, skins in sorted(meshes.items()):
        allowed = min(num_joints[skin] for skin in skins)
        joint = _largest_joint(document, document.item("meshes", mesh)["primitives"])
        if joint >= allowed:
            raise malformed(f"joint {joint} is out of range for a skin of {allowed} joints")


def _num_joints(document: Document, skins: Iterable[int]) -> dict[int, int]:
    """Return the number of joints with a bind matrix for each skin."""
    counts = {}
    elements = 0
    for index in sorted(skins):
        skin = document.item("skins", index)
        counts[index] = len(skin["joints"])
        matrices = skin.get("inverseBindMatrices")
        if matrices is None:
            continue
        accessor = document.item("accessors", matrices)
        require_type(accessor, "a bind matrix", "MAT4")
        # Any number of skins may share sparse values, all of which are read.
        elements += (accessor.get("sparse") or {}).get("count", 0)
        if elements > document.limits.max_elements:
            message = f"more sparse bind matrices than the limit of {document.limits.max_elements}"
            raise GlbError(FailureKind.TOO_LARGE, message)
        values = accessor_values(document, accessor, counts[index])
        if not np.isfinite(values).all():
            raise malformed("a bind matrix is not finite")
        counts[index] = len(values)
    return counts


def _largest_joint(document: Document, primitives: Iterable[Item]) -> int:
    """Return the largest joint index that moves a drawn vertex of a mesh, or -1 without joints."""
    return max((_joint_of_primitive(document, part) for part in primitives), default=-1)


def _joint_of_primitive(document: Document, primitive: Item) -> int:
    attributes, compressed = primitive["attributes"], compressed_attributes(primitive)
    sets = joint_sets(attributes) if "POSITION" in attributes else []
    for name in (f"{kind}_{suffix}" for suffix in sets for kind in ("JOINTS", "WEIGHTS")):
        require_type(document.item("accessors", attributes[name]), name, "VEC4")
    # Only the decoder knows the joints and weights of compressed data.
    readable = [suffix for suffix in sets if f"JOINTS_{suffix}" not in compressed]
    if not readable:
        return -1
    drawn = _drawn_vertices(document, primitive)

    def values(kind: str) -> np.ndarray:
        names = [f"{kind}_{suffix}" for suffix in readable]
        items = [document.item("accessors", attributes[name]) for name in names]
        if kind == "JOINTS" and not all(map(_is_integer, items)):
            raise malformed("joints are not integers")
        arrays = [accessor_values(document, item, len(drawn))[drawn] for item in items]
        return np.concatenate(arrays, axis=1, dtype=np.float64)

    joints = values("JOINTS")
    if any(f"WEIGHTS_{suffix}" in compressed for suffix in sets):
        return -1
    used = values("WEIGHTS") > 0
    # A vertex without weights follows its first joint.
    used[:, 0] |= ~used.any(axis=1)
    if joints[used].min(initial=0) < 0:
        raise malformed("a joint is negative")
    return int(joints[used].max(initial=-1))


def _is_integer(accessor: Item) -> bool:
    return accessor["componentType"] != _FLOAT and not accessor.get("normalized")


def _drawn_vertices(document: Document, primitive: Item) -> np.ndarray:
    """Return a mask (n,) of the vertices that a primitive draws."""
    vertices = document.item("accessors", primitive["attributes"]["POSITION"])["count"]
    # The compressed data contains its own indices, so any vertex may be drawn.
    if primitive.get("indices") is None or extension(primitive, DRACO) is not None:
        return np.ones(vertices, dtype=bool)
    drawn = np.zeros(vertices, dtype=bool)
    indices = accessor_values(document, document.item("accessors", primitive["indices"]))
    drawn[indices.reshape(-1)] = True
    return drawn
