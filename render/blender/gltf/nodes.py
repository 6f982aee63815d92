"""The tree of nodes: what the default scene shows of it, and nothing else."""

from collections.abc import Sequence

from render.blender.failure import SceneFailure
from render.blender.gltf.document import Item, extension, index, indices, item, items

__all__ = ["keep_the_shown"]

_MAX_DEPTH = 256
"""The importer recurses with every level."""


def keep_the_shown(document: Item) -> list[Item]:
    """Take off the nodes what a still picture of the default scene does not show.

    The nodes stay, for others hang below them; they lose what they carry: lights, cameras, and
    meshes of other scenes, of no scene, of coarser levels of detail (MSFT_lod), and of hidden nodes
    (KHR_node_visibility). Animations go: they move nodes off the places that the file gives them.

    Returns the nodes that show a mesh. Raises SceneFailure: `refused` for a cycle, `too_large` for
    a tree that is too deep, `import_error` for one that is none.
    """
    nodes = items(document, "nodes")
    parents = _parents(nodes)
    roots = _roots(document, parents)
    shown = _shown(nodes, roots, hidden=_lower_levels(document))
    for number, node in enumerate(nodes):
        node.pop("extras", None)
        node.pop("camera", None)
        _drop_extension(node, "KHR_lights_punctual")
        if number not in shown:
            for name in ("mesh", "skin"):
                node.pop(name, None)
            _drop_extension(node, "EXT_mesh_gpu_instancing")
    document["scenes"], document["scene"] = [{"nodes": roots}], 0
    document.pop("animations", None)
    drawn = [nodes[number] for number in sorted(shown)]
    return [node for node in drawn if index(node, "mesh") is not None]


def _parents(nodes: Sequence[Item]) -> list[int | None]:
    """The parent of each node, once it is sure that the nodes are trees of a sane depth."""
    parents: list[int | None] = [None] * len(nodes)
    for number, node in enumerate(nodes):
        for child in indices(node, "children"):
            if not 0 <= child < len(nodes):
                raise SceneFailure("import_error", f"nodes: there is no {child}")
            if parents[child] is not None:
                raise SceneFailure("import_error", f"node {child} has several parents")
            parents[child] = number
    level = [number for number, parent in enumerate(parents) if parent is None]
    reached = len(level)
    for _ in range(_MAX_DEPTH):
        level = [child for number in level for child in indices(nodes[number], "children")]
        reached += len(level)
    if level:
        raise SceneFailure("too_large", f"the nodes nest deeper than {_MAX_DEPTH} levels")
    if reached < len(nodes):
        raise SceneFailure("refused", "the tree of nodes has a cycle")
    return parents


def _roots(document: Item, parents: Sequence[int | None]) -> list[int]:
    """The roots of the default scene, which is the first unless the file names one.

    Without any scene, all nodes without a parent.
    """
    if document.get("scene") is None and not document.get("scenes"):
        return [number for number, parent in enumerate(parents) if parent is None]
    scene = document.get("scene")
    listed = indices(item(document, "scenes", 0 if scene is None else scene), "nodes")
    if not all(0 <= root < len(parents) for root in listed):
        raise SceneFailure("import_error", "the scene names a node that there is not")
    unique = dict.fromkeys(listed)
    return [root for root in unique if not _hangs_below(root, unique, parents)]


def _hangs_below(node: int, others: dict[int, None], parents: Sequence[int | None]) -> bool:
    above = parents[node]
    while above is not None and above not in others:
        above = parents[above]
    return above is not None


def _shown(nodes: Sequence[Item], roots: Sequence[int], hidden: set[int]) -> set[int]:
    shown = set()
    waiting = list(roots)
    while waiting:
        number = waiting.pop()
        visibility = extension(nodes[number], "KHR_node_visibility")
        if number in hidden or (visibility is not None and visibility.get("visible") is False):
            continue
        shown.add(number)
        waiting.extend(indices(nodes[number], "children"))
    return shown


def _lower_levels(document: Item) -> set[int]:
    """Nodes that stand in for another one which is farther away."""
    lower = set()
    for node in items(document, "nodes"):
        levels = extension(node, "MSFT_lod")
        if levels is not None:
            lower.update(indices(levels, "ids"))
    return lower


def _drop_extension(node: Item, name: str) -> None:
    if extension(node, name) is not None:
        del node["extensions"][name]
