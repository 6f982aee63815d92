"""How much a document asks for, before Blender builds it: nodes and triangles."""

from collections.abc import Sequence

from render.blender.failure import SceneFailure
from render.blender.gltf.container import Container
from render.blender.gltf.document import Item, extension, item, items, reference
from render.blender.gltf.draco import num_draco_triangles

__all__ = ["check_size"]

_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_DRACO = "KHR_draco_mesh_compression"


def check_size(
    container: Container, shown: Sequence[Item], max_nodes: int, max_triangles: int
) -> None:
    """Count nodes and triangles, every instance by itself. Raises SceneFailure (`too_large`)."""
    document = container.document
    copies = [_num_copies(document, node) for node in shown]
    num_nodes = len(items(document, "nodes")) + sum(n for n in copies if n is not None)
    if num_nodes > max_nodes:
        raise SceneFailure("too_large", f"{num_nodes} nodes, more than {max_nodes}")
    triangles: dict[int, int] = {}
    total = 0
    for node, number in zip(shown, copies, strict=True):
        mesh = node["mesh"]
        if mesh not in triangles:
            primitives = items(item(document, "meshes", mesh), "primitives")
            counts = [_num_triangles(container, part, max_triangles) for part in primitives]
            triangles[mesh] = sum(counts)
        total += triangles[mesh] * (1 if number is None else number)
    if total > max_triangles:
        raise SceneFailure("too_large", f"{total} triangles, more than {max_triangles}")


def _num_copies(document: Item, node: Item) -> int | None:
    """How often EXT_mesh_gpu_instancing repeats a node's mesh, None without it."""
    instancing = extension(node, "EXT_mesh_gpu_instancing")
    if instancing is None:
        return None
    attributes = reference(instancing, "attributes") or {}
    found = [attributes.get(name) for name in ("TRANSLATION", "ROTATION", "SCALE")]
    counts = [_count(document, index) for index in found if index is not None]
    return max(counts, default=0)


def _num_triangles(container: Container, primitive: Item, max_triangles: int) -> int:
    document = container.document
    attributes = reference(primitive, "attributes") or {}
    for index in attributes.values():
        count = _count(document, index)
        if count > 3 * max_triangles:
            raise SceneFailure("too_large", f"{count} vertices, more than {3 * max_triangles}")
    if "POSITION" not in attributes:
        return 0
    draco = extension(primitive, _DRACO)
    if draco is not None:
        held = num_draco_triangles(container.view(draco.get("bufferView")))
        if held is not None:
            return held
    corners = primitive.get("indices")
    count = _count(document, attributes["POSITION"] if corners is None else corners)
    mode = primitive.get("mode")
    if mode is None or mode == _TRIANGLES:
        if count % 3:
            # Blender would read beyond the end.
            raise SceneFailure("import_error", f"{count} corners are no whole triangles")
        return count // 3
    return max(count - 2, 0) if mode in (_STRIP, _FAN) else 0


def _count(document: Item, accessor: object) -> int:
    count = item(document, "accessors", accessor).get("count")
    if type(count) is not int or count < 0:
        raise SceneFailure("import_error", f"accessor {accessor} has no count")
    return count
