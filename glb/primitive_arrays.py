"""The arrays that the picture of a primitive needs, by their names, and how often they are read."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from core.failures import FailureKind
from glb.document import Document, Item, extension
from glb.extensions import DRACO
from glb.glb_error import GlbError, malformed
from glb.limits import GlbLimits
from glb.node_tree import NodeTree
from glb.shown_materials import shown_material, texture_coordinate_set, texture_slots

__all__ = [
    "INDICES",
    "TRIANGLES",
    "NeededNames",
    "check_num_parts",
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
_MAX_REPEATS = 10
"""Multiple of the limit on elements that morph targets and skins may read again for other nodes."""
_TARGET_STEPS = 5
"""Steps of a morph target, whose arrays are read, checked and added; a copy is one step."""


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


# ---- The number of steps of the evaluation ----


@dataclass(kw_only=True)
class _Uses:
    """The nodes that show a mesh."""

    poses: int = 0
    """Nodes with weights of their own, and 1 for all others."""
    skinned: int = 0


def check_num_parts(
    document: Document, tree: NodeTree, copies: Mapping[int, int], limits: GlbLimits
) -> None:
    """Raise GlbError (`too_large`) if the evaluation would take too many steps.

    Each copy of a primitive is a step, and each morph target of a mesh is several, again for every
    node with weights of its own. Nodes with different weights or skins also read the arrays again.
    """
    uses = _uses_of_meshes(document, tree)
    parts = elements = 0
    for mesh, use in uses.items():
        for primitive in document.item("meshes", mesh)["primitives"]:
            if "POSITION" not in primitive["attributes"] or not draws_triangles(primitive):
                continue
            targets = primitive.get("targets") or []
            parts += max(copies.get(mesh, 0), 1) + _TARGET_STEPS * len(targets) * use.poses
            if parts > limits.max_parts:
                message = "more copies of primitives and morph targets than the limit of"
                raise GlbError(FailureKind.TOO_LARGE, f"{message} {limits.max_parts}")
            elements += _repeated_elements(document, primitive, use)
            if elements > _MAX_REPEATS * limits.max_elements:
                message = "morph targets and skins repeat more elements than the limit of"
                number = _MAX_REPEATS * limits.max_elements
                raise GlbError(FailureKind.TOO_LARGE, f"{message} {number}")


def _uses_of_meshes(document: Document, tree: NodeTree) -> dict[int, _Uses]:
    uses: dict[int, _Uses] = {}
    plain: set[int] = set()
    for node in (document.item("nodes", index) for index in tree.shown):
        mesh = node.get("mesh")
        if mesh is None:
            continue
        use = uses.setdefault(mesh, _Uses())
        if node.get("weights") or mesh not in plain:
            use.poses += 1
        if not node.get("weights"):
            plain.add(mesh)
        use.skinned += node.get("skin") is not None
    return uses


def _repeated_elements(document: Document, primitive: Item, use: _Uses) -> int:
    """Return the elements of a primitive that all nodes together read after the first one.

    Of Draco-compressed data, the counts are those in the document.
    """
    attributes = primitive["attributes"]
    if max(use.poses, use.skinned) <= 1:
        return 0
    index = primitive.get("indices")
    arrays = [attributes["POSITION"], *([] if index is None else [index])]
    # Vertices that no corner uses are left out.
    count = min(document.item("accessors", number)["count"] for number in arrays)
    targets = sum(len(target) for target in primitive.get("targets") or [])
    sets = 2 * len(joint_sets(attributes))
    return count * (targets * max(use.poses - 1, 0) + sets * max(use.skinned - 1, 0))
