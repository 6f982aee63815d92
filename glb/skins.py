"""The skins of a document, and the joints that vertices name."""

from glb.accessors import accessor_arrays, require_finite, require_type
from glb.document import Document, Item, extension
from glb.extensions import DRACO
from glb.glb_error import malformed
from glb.node_tree import NodeTree
from glb.primitives import are_indices

__all__ = ["check_skins"]


def check_skins(document: Document, tree: NodeTree) -> None:
    """Check what Blender's importer reads of skins. Raises GlbError (`malformed`)."""
    for skin in document.items("skins"):
        _check_skin(document, skin)
    nodes = document.items("nodes")
    skinned = {
        (nodes[index]["mesh"], nodes[index]["skin"])
        for index in tree.shown
        if nodes[index].get("mesh") is not None and nodes[index].get("skin") is not None
    }
    for mesh, index in sorted(skinned):
        num_joints = len(document.item("skins", index)["joints"])
        for primitive in document.item("meshes", mesh)["primitives"]:
            _check_joints(document, primitive, num_joints)


def _check_skin(document: Document, skin: Item) -> None:
    for index in [*skin["joints"], skin.get("skeleton")]:
        if index is not None:
            document.item("nodes", index)
    if skin.get("inverseBindMatrices") is not None:
        accessor = document.item("accessors", skin["inverseBindMatrices"])
        require_type(accessor, "a bind matrix", "MAT4")
        require_finite(document, accessor, "a bind matrix")
        if accessor["count"] < len(skin["joints"]):
            raise malformed("a skin has fewer bind matrices than joints")


def _check_joints(document: Document, primitive: Item, num_joints: int) -> None:
    attributes = primitive["attributes"]
    compressed = (extension(primitive, DRACO) or {}).get("attributes", {})
    for name, index in attributes.items():
        if not name.startswith("JOINTS_") or name in compressed or "POSITION" not in attributes:
            continue
        accessor = document.item("accessors", index)
        if not are_indices(accessor):
            raise malformed("joints are not unsigned integers")
        if any(
            int(part.max(initial=0)) >= num_joints for part in accessor_arrays(document, accessor)
        ):
            raise malformed(f"a joint exceeds the {num_joints} of its skin")
