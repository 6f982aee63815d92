"""The primitives that the default scene draws: checks of their arrays, and triangle counts."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.failures import FailureKind
from glb.accessors import accessor_arrays, accessor_values, require_finite, require_type
from glb.decoders.draco_header import num_draco_triangles
from glb.document import Document, Item, extension
from glb.extensions import DRACO
from glb.glb_error import GlbError, malformed
from glb.limits import GlbLimits
from glb.node_tree import NodeTree
from glb.placements import instance_matrices, world_placements
from glb.primitive_arrays import (
    INDICES,
    TRIANGLES,
    NeededNames,
    check_num_parts,
    draws_triangles,
    drop_unneeded,
    primitive_arrays,
    primitive_mode,
)
from glb.schema import WEIGHTS
from glb.shown_materials import is_invisible, shown_material

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
    """A primitive with triangles that a picture of the default scene shows."""

    primitive: Item
    triangles: int
    """Triangles of one copy, according to the counts in the file."""
    copies: int
    """Copies that are not flattened to a line or a point."""


def compressed_attributes(primitive: Item) -> Item:
    """Return the Draco-compressed attributes of a primitive by name; empty without Draco."""
    attributes: Item = (extension(primitive, DRACO) or {}).get("attributes", {})
    return attributes


def drawn_primitives(
    document: Document, tree: NodeTree, limits: GlbLimits
) -> tuple[DrawnPrimitive, ...]:
    """Return the primitives with triangles that a picture of the default scene shows.

    Attributes that are not drawn are removed from the document. Raises GlbError: `malformed` if an
    array of a visible mesh is invalid, `too_large`, `empty`.
    """
    copies = _copies_of_meshes(document, tree)
    check_num_parts(document, tree, copies, limits)
    names = NeededNames(document, tree)
    triangles = _check_stored(document, sorted(copies), names, limits)
    _check_decoded(document, copies, triangles, names, limits)
    _check_weights(document, tree)
    for mesh in triangles:
        for primitive in _primitives(document, mesh):
            drop_unneeded(primitive, names.of(mesh, primitive))
    drawn = tuple(
        DrawnPrimitive(primitive, count, copies[mesh])
        for mesh in sorted(triangles)
        for primitive, count in zip(_primitives(document, mesh), triangles[mesh], strict=True)
        if count and copies[mesh] and not _is_invisible(document, primitive)
    )
    if not drawn:
        raise GlbError(FailureKind.EMPTY, "the default scene shows no triangle")
    return drawn


def _primitives(document: Document, mesh: int) -> list[Item]:
    primitives: list[Item] = document.item("meshes", mesh)["primitives"]
    return primitives


def _copies_of_meshes(document: Document, tree: NodeTree) -> Mapping[int, int]:
    """Return the number of copies of each mesh, without copies that are flattened to a line."""
    world = world_placements(document)
    has_area = world.has_area().tolist()
    copies: Counter[int] = Counter()
    for index in tree.shown:
        node = document.item("nodes", index)
        if node.get("mesh") is None:
            continue
        instances = instance_matrices(document, node)
        if instances is None and node.get("skin") is not None:
            copies[node["mesh"]] += 1  # its joints place it
            continue
        if instances is None:
            copies[node["mesh"]] += has_area[index]
        else:
            copies[node["mesh"]] += int(world[index].then(instances).has_area().sum())
    return copies


def _is_invisible(document: Document, primitive: Item) -> bool:
    index = primitive.get("material")
    return index is not None and is_invisible(shown_material(document.item("materials", index)))


# ---- Meshes that a picture shows ----


def _check_stored(
    document: Document, meshes: Iterable[int], names: NeededNames, limits: GlbLimits
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
            arrays = primitive_arrays(document, primitive, names.of(mesh, primitive))
            elements += sum(accessor["count"] for _, _, accessor in arrays)
            if elements > limits.max_elements:
                message = f"more attributes and indices than the limit of {limits.max_elements}"
                raise GlbError(FailureKind.TOO_LARGE, message)
            if not _is_compressed(primitive):
                vertices = arrays[0][2]["count"] if arrays else 0
                _check_arrays(document, vertices, arrays, checked)
            triangles[mesh].append(_count_triangles(primitive, arrays))
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
    if int(accessor_values(document, accessor).max(initial=0)) >= vertices:
        raise malformed(f"an index is out of range for {vertices} vertices")


def _are_indices(accessor: Item) -> bool:
    unsigned = accessor["componentType"] in _INDEX_TYPES and not accessor.get("normalized")
    return unsigned and accessor["type"] == "SCALAR"


def _check_decoded(
    document: Document,
    copies: Mapping[int, int],
    triangles: Mapping[int, Sequence[int]],
    names: NeededNames,
    limits: GlbLimits,
) -> None:
    """Check the number of triangles after decoding, and the primitives' types."""
    total = sum(
        _num_decoded(document, primitive, count) * copies[mesh]
        for mesh in copies
        for primitive, count in zip(_primitives(document, mesh), triangles[mesh], strict=True)
    )
    if total > limits.max_triangles:
        message = f"{total} triangles drawn; the limit is {limits.max_triangles}"
        raise GlbError(FailureKind.TOO_LARGE, message)
    checked: set[tuple[str, int]] = set()
    for mesh in sorted(copies):
        for primitive in _primitives(document, mesh):
            needed = names.of(mesh, primitive)
            _check_primitive(document, primitive, needed, limits, checked)


def _num_decoded(document: Document, primitive: Item, stated: int) -> int:
    """Return the minimum number of triangles that a primitive has after decoding."""
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
    """Check the uncompressed arrays, and what the Draco decoder does not check."""
    name, _, indices = arrays[-1]
    if name != INDICES or not _are_indices(indices):
        raise malformed(f"{DRACO}: a primitive has no valid indices")
    if not compressed.keys() <= attributes.keys():
        raise malformed(f"{DRACO}: it names an attribute that the primitive does not have")
    # Attributes that nothing needs may be anything. Arrays of morph targets are not compressed.
    needed = {name for name, _, _ in arrays[:-1]} & compressed.keys()
    decoded = {(name, attributes[name]) for name in needed}
    plain = [array for array in arrays[:-1] if array[:2] not in decoded]
    _check_arrays(document, arrays[0][2]["count"], plain, checked)
    replaced = [array for array in arrays[:-1] if array[:2] in decoded]
    for name, _, accessor in [*replaced, arrays[-1]]:
        # Neither has a meaning for an array that is decoded from other data.
        if accessor.get("byteOffset") or (accessor.get("sparse") or {}).get("count"):
            raise malformed(f"{DRACO}: {name[:40]!r} has an offset or sparse values")
        accessor_arrays(document, accessor | {"bufferView": None})


def _check_weights(document: Document, tree: NodeTree) -> None:
    """Raise GlbError (`malformed`) if a weight of a morph target is not a number."""
    of_nodes: dict[int, list[Any]] = {}
    for node in (document.item("nodes", index) for index in tree.shown):
        if node.get("mesh") is not None:
            of_nodes.setdefault(node["mesh"], []).append(node.get("weights") or None)
    for mesh, weights in of_nodes.items():
        item = document.item("meshes", mesh)
        if not any(primitive.get("targets") for primitive in item["primitives"]):
            continue
        used = [own for own in weights if own is not None]
        if len(used) < len(weights):
            used.append(item.get("weights") or [])
        problem = next(filter(None, map(WEIGHTS, used)), "")
        if problem:
            raise malformed(f"weights of morph targets{problem}")
