"""The node tree: the visible nodes of the default scene, and those on which their places depend."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.failures import FailureKind
from glb.accessors import require_finite, require_type
from glb.document import Document, Item, extension
from glb.extensions import INSTANCING
from glb.glb_error import GlbError, malformed
from glb.limits import GlbLimits

__all__ = ["NodeTree", "skins_of_meshes", "walk_nodes"]

_INSTANCE_TYPES = {"TRANSLATION": "VEC3", "ROTATION": "VEC4", "SCALE": "VEC3"}


@dataclass(frozen=True)
class NodeTree:
    """The nodes of the default scene: scene 0 if none is named, or all roots without scenes."""

    shown: Sequence[int]
    """Nodes that a still picture shows, in ascending order: without hidden nodes
    (KHR_node_visibility), coarser levels of detail (MSFT_lod) and their descendants."""


def walk_nodes(document: Document, limits: GlbLimits) -> NodeTree:
    """Find the visible nodes, and the joints that move them, without recursion.

    All other nodes become empty, in place, and may be invalid. Raises GlbError: `malformed` if the
    nodes that remain are not trees, or one of them or its instances is invalid, `too_large`.
    """
    listed = _listed_roots(document)
    items = document.items("nodes")
    children = _reachable(items, listed)
    known = [index for index in children if 0 <= index < len(items)]
    hidden = {index for index in known if _is_hidden(items[index])}
    hidden.update(*(_coarser_levels(items[index]) for index in known))
    below = _descendants(children, (child for i in hidden for child in children.get(i, ())), ())
    shown = _descendants(children, listed, hidden | below)
    kept = {index: _shown_children(document, index, hidden, below) for index in sorted(shown)}
    _add_joints(document, sorted(shown), kept)
    for index, item in enumerate(items):
        if index not in kept:
            items[index] = {}
        elif type(item) is dict and item.get("children") is not None:
            item["children"] = kept[index]
    nodes = {index: document.item("nodes", index) for index in kept}
    _check_tree(kept, limits)
    tree = NodeTree(sorted(shown))
    _check_num_nodes(document, len(kept), tree, limits)
    for index in tree.shown:
        _check_instances(document, nodes[index])
    return tree


def skins_of_meshes(document: Document, shown: Iterable[int]) -> dict[int, set[int]]:
    """Return the skins of the meshes of some nodes, by mesh; a mesh without a skin is absent."""
    meshes: dict[int, set[int]] = {}
    for node in (document.item("nodes", index) for index in shown):
        # Each instance has its own place, so the skin of an instanced mesh has no effect.
        instanced = INSTANCING in (node.get("extensions") or {})
        if node.get("mesh") is not None and node.get("skin") is not None and not instanced:
            meshes.setdefault(node["mesh"], set()).add(node["skin"])
    return meshes


def _listed_roots(document: Document) -> Sequence[int]:
    """Return the nodes that the default scene lists (see `NodeTree`), each once."""
    scene = document.json.get("scene")
    if scene is None and not document.items("scenes"):
        return range(len(document.items("nodes")))
    return list(dict.fromkeys(document.item("scenes", scene or 0).get("nodes") or []))


def _reachable(items: Sequence[Any], listed: Iterable[int]) -> dict[int, list[int]]:
    """Return the children of all nodes of the scene, hidden or not, none of which is checked."""
    children: dict[int, list[int]] = {}
    stack = list(listed)
    while stack:
        index = stack.pop()
        if index not in children:
            item = items[index] if 0 <= index < len(items) else None
            children[index] = _indices(item, "children")
            stack.extend(children[index])
    return children


def _indices(item: Any, *names: str) -> list[int]:
    """Return the integers of a list in a part of the JSON that may be invalid."""
    for name in names:
        item = item.get(name) if type(item) is dict else None
    return [index for index in item if type(index) is int] if type(item) is list else []


def _descendants(
    children: Mapping[int, Iterable[int]], tops: Iterable[int], excluded: Collection[int]
) -> set[int]:
    """Return nodes and their descendants, without `excluded` nodes and those below only these."""
    visited: set[int] = set()
    stack = list(tops)
    while stack:
        index = stack.pop()
        if index not in visited and index not in excluded:
            visited.add(index)
            stack.extend(children.get(index, ()))
    return visited


def _is_hidden(node: Any) -> bool:
    """Return whether a file hides a node, which may otherwise be invalid."""
    value = node
    for name in ("extensions", "KHR_node_visibility", "visible"):
        value = value.get(name) if type(value) is dict else None
    return value is False


def _coarser_levels(node: Any) -> list[int]:
    """Return the nodes that replace a node at a distance (MSFT_lod)."""
    return _indices(node, "extensions", "MSFT_lod", "ids")


def _shown_children(
    document: Document, index: int, hidden: Collection[int], below: Collection[int]
) -> list[int]:
    """Return the visible children of a visible node. Raises GlbError (`malformed`)."""
    node = document.item("nodes", index)
    extension(node, "MSFT_lod")
    children = [child for child in node.get("children") or [] if child not in hidden]
    for child in children:
        if child in below:
            raise malformed(f"node {child} has several parents")
    return children


def _add_joints(document: Document, shown: Sequence[int], kept: dict[int, list[int]]) -> None:
    """Add the joints of visible meshes that are not visible themselves, and their ancestors.

    `kept` has the children of each node; of the added nodes those on the way to a joint.
    """
    skins = set().union(*skins_of_meshes(document, shown).values())
    joints = [joint for skin in sorted(skins) for joint in document.item("skins", skin)["joints"]]
    nodes = document.items("nodes")
    parents: dict[int, int] = {}
    if any(joint not in kept for joint in joints):
        # The parents in the scene come first: the others may name the same nodes.
        for index in [*shown, *range(len(nodes))]:
            for child in _indices(nodes[index], "children"):
                parents.setdefault(child, index)
    for joint in joints:
        node: int | None = joint
        below: list[int] = []
        while node is not None and node not in kept:
            kept[node] = below
            below, node = [node], parents.get(node)
        if node is not None:
            kept[node] += below


def _check_tree(children: Mapping[int, Sequence[int]], limits: GlbLimits) -> None:
    """Raise GlbError if the nodes are not trees or too deep."""
    below: set[int] = set()
    for child in (child for index in children for child in children[index]):
        if child in below:
            raise malformed(f"node {child} has several parents")
        below.add(child)
    level = [index for index in children if index not in below]
    visited = depth = 0
    while level:
        visited += len(level)
        depth += 1
        if depth > limits.max_node_depth:
            message = f"nodes nest deeper than the limit of {limits.max_node_depth} levels"
            raise GlbError(FailureKind.TOO_LARGE, message)
        level = [child for index in level for child in children[index]]
    if visited < len(children):
        raise malformed("the node tree has a cycle")


def _check_num_nodes(document: Document, num_nodes: int, tree: NodeTree, limits: GlbLimits) -> None:
    """Raise GlbError (`too_large`) for too many nodes and instances (EXT_mesh_gpu_instancing)."""
    total = num_nodes
    for node in (document.item("nodes", index) for index in tree.shown):
        counts = {array["count"] for array in (_instance_arrays(document, node) or {}).values()}
        if len(counts) > 1:
            raise malformed(f"{INSTANCING}: arrays of different lengths")
        total += max(counts, default=0)
    if total > limits.max_nodes:
        message = f"{total} nodes and instances; the limit is {limits.max_nodes}"
        raise GlbError(FailureKind.TOO_LARGE, message)


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
