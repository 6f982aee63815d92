"""The tree of nodes: which of them the default scene holds and shows, and how often."""

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
    """The nodes of the default scene: the first one, or every root if the file names none."""

    roots: Sequence[int]
    """Each once, and none below another."""
    in_scene: Sequence[int]
    """All nodes of the scene, ascending."""
    shown: Sequence[int]
    """Those that a still picture shows, ascending: no hidden ones (KHR_node_visibility) and no
    coarser levels of detail (MSFT_lod)."""
    copies: Sequence[int]
    """How often each node of the file draws its mesh."""


def walk_nodes(document: Document, limits: GlbLimits) -> NodeTree:
    """Walk the node tree without recursion.

    Raises GlbError: `malformed` if it is no tree or its instances do not fit, `too_large`.
    """
    nodes = document.items("nodes")
    copies = _num_copies(document, nodes, limits)
    parents = _parents(document, nodes, limits)
    roots = _roots(document, nodes, parents)
    hidden = set(_coarser_levels(nodes)) | {
        index for index, node in enumerate(nodes) if _is_hidden(node)
    }
    shown = _below(nodes, roots, hidden)
    for index in shown:
        _check_instances(document, nodes[index])
    return NodeTree(roots, _below(nodes, roots, set()), shown, copies)


def _num_copies(document: Document, nodes: Sequence[Item], limits: GlbLimits) -> list[int]:
    """Return how often each node draws its mesh: once, or once per instance.

    Instances are those of EXT_mesh_gpu_instancing.
    """
    objects = len(nodes)
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
        objects += copies[-1]
        if objects <= limits.max_nodes:
            for array in arrays.values():
                accessor_arrays(document, array)
    if objects > limits.max_nodes:
        message = f"{objects} nodes and instances; the limit is {limits.max_nodes}"
        raise GlbError(FailureKind.TOO_LARGE, message)
    return copies


def _instance_arrays(document: Document, node: Item) -> dict[str, Item] | None:
    """Return the accessors of a node's instances, None if the node has no mesh or no instances."""
    instancing = None if node.get("mesh") is None else extension(node, INSTANCING)
    if instancing is None:
        return None
    attributes = instancing["attributes"]
    named = [name for name in _INSTANCE_TYPES if attributes.get(name) is not None]
    return {name: document.item("accessors", attributes[name]) for name in named}


def _check_instances(document: Document, node: Item) -> None:
    """Raise GlbError (`malformed`) if the importer cannot read a node's instances."""
    for name, accessor in (_instance_arrays(document, node) or {}).items():
        require_type(accessor, f"{INSTANCING}: {name}", _INSTANCE_TYPES[name])
        require_finite(document, accessor, f"{INSTANCING}: {name}")


def _parents(document: Document, nodes: Sequence[Item], limits: GlbLimits) -> list[int | None]:
    """Return the parent of each node, once it is certain that the nodes are trees."""
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
            message = f"nodes nest deeper than the limit of {limits.max_node_depth}"
            raise GlbError(FailureKind.TOO_LARGE, message)
        level = [child for index in level for child in nodes[index].get("children") or []]
    if visited < len(nodes):
        raise malformed("the node tree has a cycle")
    return parents


def _roots(document: Document, nodes: Sequence[Item], parents: Sequence[int | None]) -> list[int]:
    """Return the nodes that the default scene names, each once, and none below another."""
    scene = document.json.get("scene")
    if scene is None and not document.items("scenes"):
        return [index for index, parent in enumerate(parents) if parent is None]
    listed = dict.fromkeys(document.item("scenes", scene or 0).get("nodes") or [])
    for index in listed:
        document.item("nodes", index)
    children = [child for index in listed for child in nodes[index].get("children") or []]
    below = set(_below(nodes, children, set()))
    return [index for index in listed if index not in below]


def _below(nodes: Sequence[Item], roots: Iterable[int], without: set[int]) -> list[int]:
    """Return the roots and all that hangs below them, except below the nodes of `without`."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        index = waiting.pop()
        if index not in seen and index not in without:
            seen.add(index)
            waiting.extend(nodes[index].get("children") or [])
    return sorted(seen)


def _is_hidden(node: Item) -> bool:
    return (extension(node, "KHR_node_visibility") or {}).get("visible") is False


def _coarser_levels(nodes: Sequence[Item]) -> list[int]:
    """Return the nodes that replace others at a distance (MSFT_lod)."""
    return [
        index for node in nodes for index in (extension(node, "MSFT_lod") or {}).get("ids") or []
    ]
