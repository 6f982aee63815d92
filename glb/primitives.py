"""The primitives that the default scene draws: checks of their arrays, and triangle counts."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.failures import FailureKind
from glb.accessors import accessor_arrays, require_finite, require_type
from glb.decoders.draco_header import num_draco_triangles
from glb.document import Document, Item, extension
from glb.extensions import DRACO
from glb.glb_error import GlbError, malformed
from glb.limits import GlbLimits
from glb.node_tree import NodeTree
from glb.primitive_arrays import (
    INDICES,
    TRIANGLES,
    NeededNames,
    draws_triangles,
    drop_unneeded,
    primitive_arrays,
    primitive_mode,
)
from glb.schema import WEIGHTS

__all__ = ["ATTRIBUTE_TYPES", "DrawnPrimitive", "compressed_attributes", "drawn_primitives"]

_INDEX_TYPES = (5121, 5123, 5125)
ATTRIBUTE_TYPES = {
    "POSITION": ("VEC3",),
    "NORMAL": ("VEC3",),
    "TEXCOORD": ("VEC2",),
    "COLOR": ("VEC3", "VEC4"),
}
"""Types of the attributes that every mesh may have; the keys omit the set number (`TEXCOORD` for
`TEXCOORD_0`)."""


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

    Attributes that are not drawn, and invalid meshes that only hidden nodes have, are removed from
    the document. Raises GlbError: `malformed` if an array of a visible mesh is invalid,
    `too_large`, `empty`.
    """
    nodes = document.items("nodes")
    copies = _copies_of_meshes(nodes, tree.in_scene, tree)
    names = NeededNames(document, tree)
    triangles = _check_stored(document, tree, sorted(copies), names, limits)
    drawn = tuple(
        DrawnPrimitive(primitive, count, copies[mesh])
        for mesh in sorted(triangles)
        for primitive, count in zip(_primitives(document, mesh), triangles[mesh], strict=True)
        if count and copies[mesh]
    )
    if not drawn:
        raise GlbError(FailureKind.EMPTY, "the default scene draws no triangle")
    _check_num_triangles(sum(item.triangles * item.copies for item in drawn), limits)
    _check_shown(document, tree, triangles, names, limits)
    for mesh in triangles:
        for primitive in _primitives(document, mesh):
            drop_unneeded(primitive, names.of(mesh, primitive))
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
            copies[mesh] += tree.copies.get(index, 0)
    return copies


def _check_num_triangles(triangles: int, limits: GlbLimits) -> None:
    if triangles > limits.max_triangles:
        message = f"{triangles} triangles drawn; the limit is {limits.max_triangles}"
        raise GlbError(FailureKind.TOO_LARGE, message)


# ---- Meshes of the default scene, also of hidden nodes ----


def _check_stored(
    document: Document,
    tree: NodeTree,
    meshes: Iterable[int],
    names: NeededNames,
    limits: GlbLimits,
) -> dict[int, list[int]]:
    """Check the arrays of the meshes, and return the triangle count of each of their primitives.

    The counts are those in the file; for Draco-compressed primitives they are not verified.
    """
    nodes = document.items("nodes")
    shown = {nodes[index].get("mesh") for index in tree.shown}
    triangles: dict[int, list[int]] = {}
    checked: set[tuple[str, int]] = set()
    elements = 0
    for mesh in meshes:
        counts = []
        try:
            for primitive in _primitives(document, mesh):
                arrays = primitive_arrays(document, primitive, names.of(mesh, primitive))
                elements += sum(accessor["count"] for _, _, accessor in arrays)
                if elements > limits.max_elements:
                    message = f"more attributes and indices than the limit of {limits.max_elements}"
                    raise GlbError(FailureKind.TOO_LARGE, message)
                if not _is_compressed(primitive):
                    vertices = arrays[0][2]["count"] if arrays else 0
                    _check_arrays(document, vertices, arrays, checked)
                counts.append(_count_triangles(primitive, arrays))
        except GlbError as error:
            if mesh in shown or error.kind is not FailureKind.MALFORMED:
                raise
            document.forget("meshes", mesh)
            continue
        triangles[mesh] = counts
    return triangles


def _count_triangles(primitive: Item, arrays: Sequence[tuple[str, int, Item]]) -> int:
    """Return the whole triangles of a primitive; corners beyond them are not drawn."""
    if not arrays:
        return 0
    corners: int = (arrays[0] if primitive.get("indices") is None else arrays[-1])[2]["count"]
    return corners // 3 if primitive_mode(primitive) == TRIANGLES else max(corners - 2, 0)


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
        if name == INDICES:
            _check_indices(document, accessor, vertices)
            continue
        if accessor["count"] < vertices:
            raise malformed(f"{name!r} does not have a value for each vertex")
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
    names: NeededNames,
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
            needed = names.of(mesh, primitive)
            _check_primitive(document, primitive, needed, limits, checked)
    for node in (nodes[index] for index in tree.shown):
        if node.get("mesh") is not None:
            _check_weights(document, node)


def _num_decoded(document: Document, primitive: Item, stated: int) -> int:
    """Return the minimum number of triangles that the importer decodes from a primitive."""
    draco = extension(primitive, DRACO)
    has_positions = "POSITION" in primitive["attributes"] and draws_triangles(primitive)
    if draco is None or not has_positions:
        return stated
    return max(stated, num_draco_triangles(document.view(draco["bufferView"])) or 0)


def _check_primitive(
    document: Document,
    primitive: Item,
    names: Container[str],
    limits: GlbLimits,
    checked: set[tuple[str, int]],
) -> None:
    arrays = primitive_arrays(document, primitive, names)
    max_vertices = 3 * limits.max_triangles
    for name, _, accessor in arrays:
        if name != INDICES and accessor["count"] > max_vertices:
            message = f"{accessor['count']} vertices; the limit is {max_vertices}"
            raise GlbError(FailureKind.TOO_LARGE, message)
    # Of morph targets only the positions must have a type, which is already checked.
    for name, index in primitive["attributes"].items() if arrays else ():
        types = ATTRIBUTE_TYPES.get(name.partition("_")[0])
        if name in names and types is not None:
            require_type(document.item("accessors", index), repr(name), *types)
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
    if name != INDICES or not _are_indices(indices):
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


def _check_weights(document: Document, node: Item) -> None:
    mesh = document.item("meshes", node["mesh"])
    if any(primitive.get("targets") for primitive in mesh["primitives"]):
        problem = WEIGHTS(node.get("weights") or mesh.get("weights") or [])
        if problem:
            raise malformed(f"weights of morph targets{problem}")
