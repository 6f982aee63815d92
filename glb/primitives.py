"""The primitives that the default scene draws: checks of their arrays, and triangle counts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.failures import FailureKind
from glb.accessors import accessor_arrays, require_finite, require_type
from glb.document import Document, Item, extension
from glb.draco import num_draco_triangles
from glb.extensions import DRACO
from glb.glb_error import GlbError, malformed
from glb.limits import GlbLimits
from glb.node_tree import NodeTree

__all__ = ["ATTRIBUTE_TYPES", "DrawnPrimitive", "compressed_attributes", "drawn_primitives"]

_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_CORNER_MULTIPLES = {1: 2, _TRIANGLES: 3}
"""By mode: the number of corners must be a multiple of this, because Blender's importer reads
beyond its arrays for an incomplete line or triangle."""
_MIN_CORNERS = {2: 1, 3: 2, _STRIP: 3, _FAN: 3}
"""By mode: the minimum number of corners of a loop, strip or fan."""
_INDEX_TYPES = (5121, 5123, 5125)
_INDICES = "indices"
"""Name of the index array; no attribute has it, because attribute names are in capital letters."""
ATTRIBUTE_TYPES = {
    "POSITION": ("VEC3",),
    "NORMAL": ("VEC3",),
    "TEXCOORD": ("VEC2",),
    "COLOR": ("VEC3", "VEC4"),
}
"""Types of the attributes that the importer reads of every mesh; the keys omit the set number
(`TEXCOORD` for `TEXCOORD_0`)."""


@dataclass(frozen=True)
class DrawnPrimitive:
    """A primitive with triangles in the default scene, and its number of copies; nodes that the
    file hides count, too."""

    primitive: Item
    triangles: int
    """Triangles of one copy, according to the counts in the file."""
    copies: int


def compressed_attributes(primitive: Item) -> Item:
    """Return the Draco-compressed attributes of a primitive by name; empty without Draco."""
    attributes: Item = (extension(primitive, DRACO) or {}).get("attributes", {})
    return attributes


def drawn_primitives(
    document: Document, tree: NodeTree, limits: GlbLimits
) -> tuple[DrawnPrimitive, ...]:
    """Return the primitives with triangles that the default scene draws, hidden ones included.

    Raises GlbError: `malformed` if an array of any node's mesh is invalid, `too_large`, `empty`.
    """
    nodes = document.items("nodes")
    used = sorted({node["mesh"] for node in nodes if node.get("mesh") is not None})
    triangles = _check_stored(document, used, limits)
    copies = _copies_of_meshes(nodes, tree.in_scene, tree)
    drawn = tuple(
        DrawnPrimitive(primitive, count, copies[mesh])
        for mesh in sorted(copies)
        for primitive, count in zip(_primitives(document, mesh), triangles[mesh], strict=True)
        if count and copies[mesh]
    )
    if not drawn:
        raise GlbError(FailureKind.EMPTY, "the default scene draws no triangle")
    _check_num_triangles(sum(item.triangles * item.copies for item in drawn), limits)
    _check_shown(document, tree, triangles, limits)
    return drawn


def _primitives(document: Document, mesh: int) -> list[Item]:
    primitives: list[Item] = document.item("meshes", mesh)["primitives"]
    return primitives


def _copies_of_meshes(
    nodes: Sequence[Item], chosen: Iterable[int], tree: NodeTree
) -> Mapping[int, int]:
    """Return the number of times that the chosen nodes draw each mesh."""
    copies: Counter[int] = Counter()
    for index in chosen:
        mesh = nodes[index].get("mesh")
        if mesh is not None:
            copies[mesh] += tree.copies[index]
    return copies


def _check_num_triangles(triangles: int, limits: GlbLimits) -> None:
    if triangles > limits.max_triangles:
        message = f"{triangles} triangles drawn; the limit is {limits.max_triangles}"
        raise GlbError(FailureKind.TOO_LARGE, message)


# ---- Meshes of all nodes, also of nodes outside the scene ----


def _check_stored(
    document: Document, meshes: Iterable[int], limits: GlbLimits
) -> dict[int, list[int]]:
    """Check the arrays of the meshes, and return the triangle count of each of their primitives.

    The counts are those in the file; for Draco-compressed primitives they are not verified.
    """
    triangles: dict[int, list[int]] = {}
    checked: set[tuple[str, int]] = set()
    elements = 0
    for mesh in meshes:
        triangles[mesh] = []
        for primitive in _primitives(document, mesh):
            arrays = _primitive_arrays(document, primitive)
            elements += sum(accessor["count"] for _, _, accessor in arrays)
            if elements > limits.max_elements:
                message = f"more attributes and indices than the limit of {limits.max_elements}"
                raise GlbError(FailureKind.TOO_LARGE, message)
            if primitive.get("material") is not None:
                document.item("materials", primitive["material"])
            if not _is_compressed(primitive):
                vertices = arrays[0][2]["count"] if arrays else 0
                _check_arrays(document, vertices, arrays, checked)
            triangles[mesh].append(_count_triangles(primitive, arrays))
    return triangles


def _primitive_arrays(document: Document, primitive: Item) -> list[tuple[str, int, Item]]:
    """Return name, index and accessor of a primitive's arrays, POSITION first and indices last.

    The list is empty without POSITION.
    """
    attributes = primitive["attributes"]
    if "POSITION" not in attributes:
        return []
    named = [("POSITION", attributes["POSITION"])]
    named += [(name, index) for name, index in attributes.items() if name != "POSITION"]
    named += [pair for target in primitive.get("targets") or [] for pair in target.items()]
    if primitive.get("indices") is not None:
        named.append((_INDICES, primitive["indices"]))
    return [(name, index, document.item("accessors", index)) for name, index in named]


def _count_triangles(primitive: Item, arrays: Sequence[tuple[str, int, Item]]) -> int:
    if not arrays:
        return 0
    corners = (arrays[0] if primitive.get("indices") is None else arrays[-1])[2]["count"]
    mode = _TRIANGLES if primitive.get("mode") is None else primitive["mode"]
    # A Draco-compressed primitive is decoded to a count of its own.
    if not _is_compressed(primitive) and (
        corners % _CORNER_MULTIPLES.get(mode, 1) or corners < _MIN_CORNERS.get(mode, 0)
    ):
        raise malformed(f"{corners} corners are invalid for a primitive of mode {mode}")
    if mode > _FAN:
        raise malformed(f"primitive mode {mode} does not exist")
    if mode in (_STRIP, _FAN):
        return max(corners - 2, 0)
    return corners // 3 if mode == _TRIANGLES else 0


def _is_compressed(primitive: Item) -> bool:
    return DRACO in (primitive.get("extensions") or {})


def _check_arrays(
    document: Document,
    vertices: int,
    arrays: Sequence[tuple[str, int, Item]],
    checked: set[tuple[str, int]],
) -> None:
    """Raise GlbError unless arrays are in the file, positions finite and indices in range."""
    for name, index, accessor in arrays:
        if name == _INDICES:
            _check_indices(document, accessor, vertices)
            continue
        if accessor["count"] < vertices:
            raise malformed(f"{name[:40]!r} does not have a value for each vertex")
        if (name, index) in checked:
            continue
        checked.add((name, index))
        if name == "POSITION":
            require_type(accessor, "a vertex position", "VEC3")
            require_finite(document, accessor, "a vertex position")
        else:
            accessor_arrays(document, accessor)


def _check_indices(document: Document, accessor: Item, vertices: int) -> None:
    if not _are_indices(accessor):
        raise malformed("indices are not unsigned integers")
    for array in accessor_arrays(document, accessor):
        if int(array.max(initial=0)) >= vertices:
            raise malformed(f"an index is out of range for {vertices} vertices")


def _are_indices(accessor: Item) -> bool:
    unsigned = accessor["componentType"] in _INDEX_TYPES and not accessor.get("normalized")
    return unsigned and accessor["type"] == "SCALAR"


# ---- Meshes that a still picture shows ----


def _check_shown(
    document: Document,
    tree: NodeTree,
    triangles: Mapping[int, Sequence[int]],
    limits: GlbLimits,
) -> None:
    nodes = document.items("nodes")
    copies = _copies_of_meshes(nodes, tree.shown, tree)
    total = sum(
        _num_decoded(document, primitive, count) * copies[mesh]
        for mesh in copies
        for primitive, count in zip(_primitives(document, mesh), triangles[mesh], strict=True)
    )
    if not total:
        raise GlbError(FailureKind.EMPTY, "all triangles of the default scene are hidden")
    _check_num_triangles(total, limits)
    checked: set[tuple[str, int]] = set()
    for mesh in sorted(copies):
        for primitive in _primitives(document, mesh):
            _check_primitive(document, primitive, limits, checked)


def _num_decoded(document: Document, primitive: Item, stated: int) -> int:
    """Return the minimum number of triangles that the importer decodes from a primitive."""
    draco = extension(primitive, DRACO)
    if draco is None or "POSITION" not in primitive["attributes"]:
        return stated
    return max(stated, num_draco_triangles(document.view(draco["bufferView"])) or 0)


def _check_primitive(
    document: Document, primitive: Item, limits: GlbLimits, checked: set[tuple[str, int]]
) -> None:
    arrays = _primitive_arrays(document, primitive)
    max_vertices = 3 * limits.max_triangles
    for name, _, accessor in arrays:
        if name != _INDICES and accessor["count"] > max_vertices:
            message = f"{accessor['count']} vertices; the limit is {max_vertices}"
            raise GlbError(FailureKind.TOO_LARGE, message)
    # Of morph targets the importer reads only the positions, which are already checked.
    for name, index in primitive["attributes"].items() if arrays else ():
        types = ATTRIBUTE_TYPES.get(name.partition("_")[0])
        if types is not None:
            require_type(document.item("accessors", index), repr(name[:40]), *types)
    draco = extension(primitive, DRACO)
    if draco is not None and arrays:
        _check_compressed(document, primitive["attributes"], draco["attributes"], arrays, checked)


def _check_compressed(
    document: Document,
    attributes: Item,
    compressed: Item,
    arrays: Sequence[tuple[str, int, Item]],
    checked: set[tuple[str, int]],
) -> None:
    """Check the uncompressed arrays, and what the importer's Draco decoder does not check."""
    name, _, indices = arrays[-1]
    if name != _INDICES or not _are_indices(indices):
        raise malformed(f"{DRACO}: a primitive has no valid indices")
    if not compressed.keys() <= attributes.keys():
        raise malformed(f"{DRACO}: it names an attribute that the primitive does not have")
    decoded = {(name, attributes[name]) for name in compressed}
    plain = [array for array in arrays[:-1] if array[:2] not in decoded]
    _check_arrays(document, arrays[0][2]["count"], plain, checked)
    replaced = [array for array in arrays[:-1] if array[:2] in decoded]
    for name, _, accessor in [*replaced, arrays[-1]]:
        # The importer would apply the offset and the sparse values to the decoded array.
        if accessor.get("byteOffset") or (accessor.get("sparse") or {}).get("count"):
            raise malformed(f"{DRACO}: {name[:40]!r} has an offset or sparse values")
        accessor_arrays(document, accessor | {"bufferView": None})
