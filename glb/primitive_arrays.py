"""The arrays that the picture of a primitive needs, by their names."""

from collections.abc import Container, Mapping
from typing import Any

from glb.document import Document, Item, extension
from glb.extensions import DRACO
from glb.glb_error import malformed
from glb.node_tree import NodeTree
from glb.shown_materials import shown_material, texture_coordinate_set, texture_slots

__all__ = [
    "INDICES",
    "TRIANGLES",
    "NeededNames",
    "draws_triangles",
    "drop_unneeded",
    "joint_sets",
    "primitive_arrays",
    "primitive_mode",
]

TRIANGLES, _FAN = 4, 6
INDICES = "indices"
"""Name of the index array; no attribute has it, because attribute names are in capital letters."""
_TARGETS = ("POSITION", "NORMAL")
"""The attributes that morph targets change."""


class NeededNames:
    """The attributes that the picture of a primitive needs, by their names."""

    def __init__(self, document: Document, tree: NodeTree) -> None:
        self.document = document
        nodes = (document.items("nodes")[index] for index in tree.shown)
        self.skinned = {node.get("mesh") for node in nodes if node.get("skin") is not None}
        self.sets: dict[int | None, set[str]] = {None: set()}

    def of(self, mesh: int, primitive: Item) -> set[str]:
        """Return the names, POSITION included. Raises GlbError for an invalid material."""
        material: int | None = primitive.get("material")
        if material is not None and material not in self.sets:
            slots = texture_slots(shown_material(self.document.item("materials", material)))
            self.sets[material] = {f"TEXCOORD_{texture_coordinate_set(slot)}" for _, slot in slots}
        names = {"POSITION", "NORMAL", "COLOR_0"} | self.sets[material]
        if mesh in self.skinned:
            for number in joint_sets(primitive["attributes"]):
                names |= {f"JOINTS_{number}", f"WEIGHTS_{number}"}
        return names


def joint_sets(attributes: Mapping[str, Any]) -> list[str]:
    """Return the numbers of a primitive's sets of joints and weights: 0 and those that follow."""
    sets: list[str] = []
    while all(f"{name}_{len(sets)}" in attributes for name in ("JOINTS", "WEIGHTS")):
        sets.append(str(len(sets)))
    return sets


def primitive_arrays(
    document: Document, primitive: Item, names: Container[str]
) -> list[tuple[str, int, Item]]:
    """Return name, index and accessor of a primitive's arrays, POSITION first and indices last.

    The list is empty without POSITION, and for points and lines, which are not drawn.
    """
    attributes = primitive["attributes"]
    if "POSITION" not in attributes or not draws_triangles(primitive):
        return []
    named = [("POSITION", attributes["POSITION"])]
    named += [pair for pair in attributes.items() if pair[0] != "POSITION" and pair[0] in names]
    named += [
        pair
        for target in primitive.get("targets") or []
        for pair in target.items()
        if pair[0] in _TARGETS and pair[1] is not None
    ]
    if primitive.get("indices") is not None:
        named.append((INDICES, primitive["indices"]))
    return [(name, index, document.item("accessors", index)) for name, index in named]


def drop_unneeded(primitive: Item, names: Container[str]) -> None:
    """Remove attributes and differences of morph targets that are not drawn, in place."""
    is_drawn = draws_triangles(primitive)
    draco = extension(primitive, DRACO) if is_drawn else None
    for part in (primitive, draco or primitive):
        part["attributes"] = {
            name: index for name, index in part["attributes"].items() if is_drawn and name in names
        }
    if primitive.get("targets"):
        primitive["targets"] = [
            {name: target[name] for name in _TARGETS if is_drawn and target.get(name) is not None}
            for target in primitive["targets"]
        ]


def draws_triangles(primitive: Item) -> bool:
    """Return whether a primitive is neither points nor lines. Raises GlbError (`malformed`)."""
    return primitive_mode(primitive) >= TRIANGLES


def primitive_mode(primitive: Item) -> int:
    """Return the mode of a primitive. Raises GlbError (`malformed`) for one that does not exist."""
    mode: int = TRIANGLES if primitive.get("mode") is None else primitive["mode"]
    if mode > _FAN:
        raise malformed(f"primitive mode {mode} does not exist")
    return mode
