"""The node tree: the nodes of the default scene, the visible ones, and their number of copies."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.failures import FailureKind
from glb.accessors import accessor_arrays, require_finite, require_type
from glb.document import Document, Item, extension
from glb.extensions import INSTANCING
from glb.glb_error import GlbError, malformed
from glb.limits import GlbLimits

__all__ = ["NodeTree", "walk_nodes"]

_INSTANCE_TYPES = {"TRANSLATION": "VEC3", "ROTATION": "VEC4", "SCALE": "VEC3"}


@dataclass(frozen=True)
class NodeTree:
    """The nodes of the default scene: scene 0 if none is named, or all roots without scenes."""

    roots: Sequence[int]
    """The scene's root nodes, without duplicates and without descendants of other roots."""
    in_scene: Sequence[int]
    """All nodes of the scene, in ascending order."""
    shown: Sequence[int]
    """Nodes that a still picture shows, in ascending order: without hidden nodes
    (KHR_node_visibility), coarser levels of detail (MSFT_lod) and their descendants."""
    copies: Sequence[int]
    """Number of times that each node of the file draws its mesh."""


def walk_nodes(document: Document, limits: GlbLimits) -> NodeTree:
    """Walk the node tree without recursion.

    Raises GlbError: `malformed` if it is not a tree or an instance is invalid, `too_large`.
    """
    nodes = document.items("nodes")
    copies = _num_copies(document, nodes, limits)
    parents = _parents(document, nodes, limits)
    roots = _roots(document, nodes, parents)
    hidden = set(_coarser_levels(nodes)) | {
        index for index, node in enumerate(nodes) if _is_hidden(node)
    }
    shown = _descendants(nodes, roots, hidden)
    for index in shown:
        _check_instances(document, nodes[index])
    return NodeTree(roots, _descendants(nodes, roots, set()), shown, copies)


def _num_copies(document: Document, nodes: Sequence[Item], limits: GlbLimits) -> list[int]:
    """Return the number of times each node draws its mesh: once, or once per instance.

    An instance is one of EXT_mesh_gpu_instancing.
    """
    num_objects = len(nodes)
    copies = []
    for node in nodes:
        arrays = _instance_arrays(document, node)
        if arrays is None:
            copies.append(int(node.get("mesh") is not None))
            continue
        counts = {array["count"] for array in arrays.values()}
        if len(counts) > 1:
            raise malformed(f"{INSTANCING}: arrays of different lengths")
        copies.append(counts.pop() if counts else 0)
        num_objects += copies[-1]
        if num_objects <= limits.max_nodes:
            for array in arrays.values():
                accessor_arrays(document, array)
    if num_objects > limits.max_nodes:
        message = f"{num_objects} nodes and instances; the limit is {limits.max_nodes}"
        raise GlbError(FailureKind.TOO_LARGE, message)
    return copies


def _instance_arrays(document: Document, node: Item) -> dict[str, Item] | None:
    """Return the accessors of a node's instances by name; None without a mesh or instances."""
    instancing = None if node.get("mesh") is None else extension(node, INSTANCING)
    if instancing is None:
        return None
    attributes = instancing["attributes"]
    names = [name for name in _INSTANCE_TYPES if attributes.get(name) is not None]
    return {name: document.item("accessors", attributes[name]) for name in names}


def _check_instances(document: Document, node: Item) -> None:
    """Raise GlbError (`malformed`) if the importer cannot read a node's instances."""
    for name, accessor in (_instance_arrays(document, node) or {}).items():
        require_type(accessor, f"{INSTANCING}: {name}", _INSTANCE_TYPES[name])
        require_finite(document, accessor, f"{INSTANCING}: {name}")


def _parents(document: Document, nodes: Sequence[Item], limits: GlbLimits) -> list[int | None]:
    """Return the parent of each node. Raises GlbError if the nodes are not trees or too deep."""
    parents: list[int | None] = [None] * len(nodes)
    for index, node in enumerate(nodes):
        for child in node.get("children") or []:
            document.item("nodes", child)
            if parents[child] is not None:
                raise malformed(f"node {child} has several parents")
            parents[child] = index
    level = [index for index, parent in enumerate(parents) if parent is None]
    visited = depth = 0
    while level:
        visited += len(level)
        depth += 1
        if depth > limits.max_node_depth:
            message = f"nodes nest deeper than the limit of {limits.max_node_depth} levels"
            raise GlbError(FailureKind.TOO_LARGE, message)
        level = [child for index in level for child in nodes[index].get("children") or []]
    if visited < len(nodes):
        raise malformed("the node tree has a cycle")
    return parents


def _roots(document: Document, nodes: Sequence[Item], parents: Sequence[int | None]) -> list[int]:
    """Return the roots of the default scene (see `NodeTree`)."""
    scene = document.json.get("scene")
    if scene is None and not document.items("scenes"):
        return [index for index, parent in enumerate(parents) if parent is None]
    listed = dict.fromkeys(document.item("scenes", scene or 0).get("nodes") or [])
    for index in listed:
        document.item("nodes", index)
    children = [child for index in listed for child in nodes[index].get("children") or []]
    descendants = set(_descendants(nodes, children, set()))
    return [index for index in listed if index not in descendants]


def _descendants(nodes: Sequence[Item], roots: Iterable[int], excluded: set[int]) -> list[int]:
    """Return the roots and their descendants, without `excluded` nodes and their descendants."""
    visited: set[int] = set()
    stack = list(roots)
    while stack:
        index = stack.pop()
        if index not in visited and index not in excluded:
            visited.add(index)
            stack.extend(nodes[index].get("children") or [])
    return sorted(visited)


def _is_hidden(node: Item) -> bool:
    return (extension(node, "KHR_node_visibility") or {}).get("visible") is False


def _coarser_levels(nodes: Sequence[Item]) -> list[int]:
    """Return the nodes that replace other nodes at a distance (MSFT_lod)."""
    return [
        index for node in nodes for index in (extension(node, "MSFT_lod") or {}).get("ids") or []
    ]
