"""Removal of nodes' contents and primitives that a still image does not show."""

from collections.abc import Sequence

from glb.document import Document, Item, extension
from glb.extensions import DRACO, INSTANCING
from glb.node_tree import NodeTree
from glb.primitives import ATTRIBUTE_TYPES
from glb.skins import SKIN_ATTRIBUTES

__all__ = ["prune_nodes", "prune_primitives"]


def prune_nodes(document: Document, tree: NodeTree) -> None:
    """Remove from the nodes what a still image of the default scene does not show.

    Nodes keep their place in the tree because others depend on their transforms. Lights, cameras
    and the meshes of hidden nodes are removed.
    """
    shown = set(tree.shown)
    for index, node in enumerate(document.items("nodes")):
        dropped = {"KHR_lights_punctual"}
        for name in ("extras", "camera"):
            node.pop(name, None)
        if index not in shown:
            dropped.add(INSTANCING)
            for name in ("mesh", "skin"):
                node.pop(name, None)
        for name in dropped & (node.get("extensions") or {}).keys():
            del node["extensions"][name]
    document.json["scenes"], document.json["scene"] = [{"nodes": list(tree.roots)}], 0


def prune_primitives(document: Document, primitives: Sequence[Item]) -> None:
    """Remove all primitives but the given ones, and attributes that the importer does not draw."""
    kept = {id(primitive) for primitive in primitives}
    names = {*ATTRIBUTE_TYPES, *SKIN_ATTRIBUTES}
    for accessor in document.items("accessors"):
        # The importer names shape keys after it, and raises an error if the name is empty.
        accessor.pop("name", None)
    for mesh in document.items("meshes"):
        mesh.pop("extras", None)
        mesh["primitives"] = [part for part in mesh["primitives"] if id(part) in kept]
    for primitive in primitives:
        # The materials of other variants would be loaded without being visible.
        (primitive.get("extensions") or {}).pop("KHR_materials_variants", None)
        draco = extension(primitive, DRACO)
        for part in (primitive, draco or primitive):
            part["attributes"] = {
                name: index
                for name, index in part["attributes"].items()
                if name.partition("_")[0] in names
            }
