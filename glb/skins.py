"""The skins that the scene shows, and the joints that their vertices name."""

from collections.abc import Iterable

import numpy as np

from glb.accessors import accessor_values, require_finite, require_type
from glb.document import Document, Item, extension
from glb.extensions import DRACO, INSTANCING
from glb.glb_error import malformed
from glb.node_tree import NodeTree
from glb.primitives import compressed_attributes

__all__ = ["SKIN_ATTRIBUTES", "check_skins"]

SKIN_ATTRIBUTES = ("JOINTS", "WEIGHTS")
"""The attributes that the importer reads of skinned meshes only, without their set numbers."""
_FLOAT = 5126


def check_skins(document: Document, tree: NodeTree) -> None:
    """Check what Blender's importer reads of skins. Raises GlbError (`malformed`)."""
    for skin in document.items("skins"):
        # The importer makes bones of the joints of all skins.
        for index in [*skin["joints"], skin.get("skeleton")]:
            if index is not None:
                document.item("nodes", index)
    meshes: dict[int, set[int]] = {}
    nodes = document.items("nodes")
    for node in (nodes[index] for index in tree.shown):
        # The importer ignores the skin of an instanced mesh.
        instanced = INSTANCING in (node.get("extensions") or {})
        if node.get("mesh") is not None and node.get("skin") is not None and not instanced:
            meshes.setdefault(node["mesh"], set()).add(node["skin"])
    num_joints = _num_joints(document, set().union(*meshes.values()))
    for mesh, skins in sorted(meshes.items()):
        least = min(num_joints[skin] for skin in skins)
        joint = _largest_joint(document, document.item("meshes", mesh)["primitives"])
        if joint >= least:
            raise malformed(f"joint {joint} exceeds the {least} of its skin")


def _num_joints(document: Document, skins: Iterable[int]) -> dict[int, int]:
    """Return the number of joints of each skin that have a bind matrix."""
    numbers = {}
    checked: set[int] = set()
    for index in sorted(skins):
        skin = document.item("skins", index)
        numbers[index] = len(skin["joints"])
        matrices = skin.get("inverseBindMatrices")
        if matrices is None:
            continue
        accessor = document.item("accessors", matrices)
        numbers[index] = min(numbers[index], accessor["count"])
        if matrices not in checked:
            checked.add(matrices)
            require_type(accessor, "a bind matrix", "MAT4")
            require_finite(document, accessor, "a bind matrix")
    return numbers


def _largest_joint(document: Document, primitives: Iterable[Item]) -> int:
    """Return the largest joint that the drawn vertices of a mesh name, -1 without joints."""
    parts = [part for part in primitives if "POSITION" in part["attributes"]]
    num_sets = max((_num_sets(part["attributes"]) for part in parts), default=0)
    numbers = {str(number) for number in range(num_sets)}
    largest = -1
    for part in parts:
        attributes = part["attributes"]
        suffixes = (name.removeprefix("JOINTS_") for name in attributes)
        sets = [name for name in suffixes if name in numbers and _has_set(attributes, name)]
        if not sets:
            continue
        drawn = _drawn_vertices(document, part)
        for suffix in sets:
            for name in SKIN_ATTRIBUTES:
                accessor = document.item("accessors", attributes[f"{name}_{suffix}"])
                require_type(accessor, f"{name}_{suffix}", "VEC4")
            if f"JOINTS_{suffix}" not in compressed_attributes(part):
                accessor = document.item("accessors", attributes[f"JOINTS_{suffix}"])
                largest = max(largest, _largest_integer(document, accessor, drawn))
    return largest


def _num_sets(attributes: Item) -> int:
    """Return the number of sets of joints and weights, which the importer counts from 0 on."""
    number = 0
    while _has_set(attributes, str(number)):
        number += 1
    return number


def _has_set(attributes: Item, suffix: str) -> bool:
    return all(f"{name}_{suffix}" in attributes for name in SKIN_ATTRIBUTES)


def _drawn_vertices(document: Document, primitive: Item) -> np.ndarray:
    """Return (n,) whether each vertex of a primitive is drawn: the importer keeps no others."""
    vertices = document.item("accessors", primitive["attributes"]["POSITION"])["count"]
    # Draco has indices of its own: any vertex may be drawn.
    if primitive.get("indices") is None or extension(primitive, DRACO) is not None:
        return np.ones(vertices, dtype=bool)
    drawn = np.zeros(vertices, dtype=bool)
    indices = accessor_values(document, document.item("accessors", primitive["indices"]))
    drawn[indices.reshape(-1)] = True
    return drawn


def _largest_integer(document: Document, accessor: Item, drawn: np.ndarray) -> int:
    if accessor["componentType"] == _FLOAT or accessor.get("normalized"):
        raise malformed("joints are not integers")
    values = accessor_values(document, accessor)[: len(drawn)][drawn]
    if values.min(initial=0) < 0:
        raise malformed("a joint is negative")
    return int(values.max(initial=0)) if len(values) else -1
