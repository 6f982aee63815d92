"""The node tree: the nodes of the default scene, the visible ones, and their number of copies."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.failures import FailureKind
from glb.accessors import require_finite, require_type
from glb.document import Document, Item, extension
from glb.extensions import INSTANCING
from glb.glb_error import GlbError, malformed
from glb.limits import GlbLimits

__all__ = ["NodeTree", "read_joints", "walk_nodes"]

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
    copies: Mapping[int, int]
    """Number of times that each node of the scene draws its mesh, by index; absent is none."""


def walk_nodes(document: Document, limits: GlbLimits) -> NodeTree:
    """Walk the nodes of the default scene without recursion; no others are read.

    Invalid nodes below hidden ones are removed from the document. Raises GlbError: `malformed` if
    the scene is not a tree or a visible node or instance is invalid, `too_large`.
    """
    listed = _listed_roots(document)
    nodes, invalid = _reachable_nodes(document, listed)
    parents = _parents(nodes, limits)
    roots = [index for index in listed if index not in parents]
    items = document.items("nodes")
    known = (index for index in [*nodes, *invalid] if index < len(items))
    hidden = {index for index in known if _is_hidden(items[index])}
    hidden.update(*(_coarser_levels(node) for node in nodes.values()))
    shown = _descendants(nodes, roots, hidden)
    for index in shown:
        if index in invalid:
            raise invalid[index]
    _keep_children(nodes)
    copies = _num_copies(document, nodes, set(shown), limits)
    for index in shown:
        _check_instances(document, nodes[index])
    valid_roots = [index for index in roots if index in nodes]
    return NodeTree(valid_roots, sorted(nodes), shown, copies)


def read_joints(document: Document, tree: NodeTree, joints: Iterable[int]) -> None:
    """Read the joints of a skin, and the nodes outside the scene on which they depend.

    Of such nodes only the children on the way to a joint remain. Raises GlbError (`malformed`).
    """
    in_scene = set(tree.in_scene)
    outside = [joint for joint in joints if joint not in in_scene]
    if not outside:
        return
    nodes = document.items("nodes")
    parents: dict[int, int] = {}
    for index, item in enumerate(nodes):
        children = item.get("children") if type(item) is dict else None
        for child in children if type(children) is list else ():
            if type(child) is int:
                parents.setdefault(child, index)
    # The children of each node on the way from a root to a joint; a dictionary keeps their order.
    kept: dict[int, dict[int, None]] = {}
    for joint in outside:
        node: int | None = joint
        below: list[int] = []
        way: set[int] = set()
        while node is not None and node not in kept:
            kept[node] = dict.fromkeys(below)
            way.add(node)
            below, node = [node], parents.get(node)
        if node in way:
            raise malformed("the node tree has a cycle")
        if node is not None:
            kept[node].update(dict.fromkeys(below))
    for index, on_the_way in kept.items():
        if index < len(nodes) and type(nodes[index]) is dict:
            nodes[index]["children"] = list(on_the_way)
        document.item("nodes", index)


def _keep_children(nodes: Mapping[int, Item]) -> None:
    """Remove from the children of each node those that are not among the nodes, in place."""
    for node in nodes.values():
        if node.get("children"):
            node["children"] = [child for child in node["children"] if child in nodes]


def _listed_roots(document: Document) -> Sequence[int]:
    """Return the nodes that the default scene lists (see `NodeTree`), each once."""
    scene = document.json.get("scene")
    if scene is None and not document.items("scenes"):
        return range(len(document.items("nodes")))
    return list(dict.fromkeys(document.item("scenes", scene or 0).get("nodes") or []))


def _reachable_nodes(
    document: Document, listed: Iterable[int]
) -> tuple[dict[int, Item], dict[int, GlbError]]:
    """Return the valid nodes of the scene by index, and the errors of the others."""
    nodes: dict[int, Item] = {}
    invalid: dict[int, GlbError] = {}
    stack = list(listed)
    while stack:
        index = stack.pop()
        if index in nodes or index in invalid:
            continue
        try:
            node = document.item("nodes", index)
            extension(node, "MSFT_lod")
        except GlbError as error:
            invalid[index] = error
            continue
        nodes[index] = node
        stack.extend(node.get("children") or [])
    return nodes, invalid


def _num_copies(
    document: Document, nodes: Mapping[int, Item], shown: Container[int], limits: GlbLimits
) -> Mapping[int, int]:
    """Return the number of times each node draws its mesh: once, or once per instance.

    An instance is one of EXT_mesh_gpu_instancing. Hidden nodes with invalid instances draw nothing.
    """
    num_objects = len(nodes)
    copies = {}
    for index, node in nodes.items():
        try:
            arrays = _instance_arrays(document, node)
            counts = {array["count"] for array in (arrays or {}).values()}
            if len(counts) > 1:
                raise malformed(f"{INSTANCING}: arrays of different lengths")
        except GlbError:
            if index in shown:
                raise
            continue
        if arrays is None:
            copies[index] = int(node.get("mesh") is not None)
            continue
        copies[index] = counts.pop() if counts else int(bool(_instance_attributes(node)))
        num_objects += copies[index]
    if num_objects > limits.max_nodes:
        message = f"{num_objects} nodes and instances; the limit is {limits.max_nodes}"
        raise GlbError(FailureKind.TOO_LARGE, message)
    return copies


def _instance_arrays(document: Document, node: Item) -> dict[str, Item] | None:
    """Return the accessors of a node's instances by name; None without a mesh or instances."""
    attributes = None if node.get("mesh") is None else _instance_attributes(node)
    if attributes is None:
        return None
    names = [name for name in _INSTANCE_TYPES if attributes.get(name) is not None]
    return {name: document.item("accessors", attributes[name]) for name in names}


def _instance_attributes(node: Item) -> Item | None:
    instancing = extension(node, INSTANCING)
    return None if instancing is None else instancing["attributes"]


def _check_instances(document: Document, node: Item) -> None:
    """Raise GlbError (`malformed`) if a node's instances have wrong types or infinite values."""
    for name, accessor in (_instance_arrays(document, node) or {}).items():
        require_type(accessor, f"{INSTANCING}: {name}", _INSTANCE_TYPES[name])
        require_finite(document, accessor, f"{INSTANCING}: {name}")


def _parents(nodes: Mapping[int, Item], limits: GlbLimits) -> dict[int, int]:
    """Return the parents of nodes. Raises GlbError if the nodes are not trees or too deep."""
    parents: dict[int, int] = {}
    for index, node in nodes.items():
        for child in node.get("children") or []:
            if child in parents:
                raise malformed(f"node {child} has several parents")
            parents[child] = index
    level = [index for index in nodes if index not in parents]
    visited = depth = 0
    while level:
        visited += len(level)
        depth += 1
        if depth > limits.max_node_depth:
            message = f"nodes nest deeper than the limit of {limits.max_node_depth} levels"
            raise GlbError(FailureKind.TOO_LARGE, message)
        children = [child for index in level for child in nodes[index].get("children") or []]
        level = [child for child in children if child in nodes]
    if visited < len(nodes):
        raise malformed("the node tree has a cycle")
    return parents


def _descendants(nodes: Mapping[int, Item], roots: Iterable[int], excluded: set[int]) -> list[int]:
    """Return the roots and their descendants, without `excluded` nodes and their descendants."""
    visited: set[int] = set()
    stack = list(roots)
    while stack:
        index = stack.pop()
        if index not in visited and index not in excluded:
            visited.add(index)
            stack.extend(nodes.get(index, {}).get("children") or [])
    return sorted(visited)


def _is_hidden(node: Any) -> bool:
    """Return whether a file hides a node, which may otherwise be invalid."""
    value = node
    for name in ("extensions", "KHR_node_visibility", "visible"):
        value = value.get(name) if type(value) is dict else None
    return value is False


def _coarser_levels(node: Item) -> list[int]:
    """Return the nodes that replace a node at a distance (MSFT_lod)."""
    return (extension(node, "MSFT_lod") or {}).get("ids") or []
