"""What the default scene of a GLB draws: nodes, instances, primitives and triangles."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from filters.glb import Glb, GlbRefused, InspectLimits
from filters.glb_arrays import accessor_arrays
from filters.gltf import Accessor, Mesh, Node, Primitive

__all__ = ["Drawn", "DrawnScene", "draw_scene"]

_TRIANGLES, _STRIP, _FAN = 4, 5, 6
# Separate lines and triangles need whole ones: Blender's importer reads beyond its arrays for the
# rest. Loops, strips and fans need at least so many corners.
_WHOLE = {1: 2, _TRIANGLES: 3}
_LEAST = {2: 1, 3: 2, _STRIP: 3, _FAN: 3}
_INDEX_TYPES = (5121, 5123, 5125)
# No attribute has this name: the specification keeps small letters out of them.
_INDICES = "indices"


@dataclass(frozen=True)
class Drawn:
    """A primitive with the number of times the scene draws it."""

    primitive: Primitive
    triangles: int
    """In one copy."""
    copies: int


@dataclass(frozen=True)
class DrawnScene:
    """The default scene, flattened."""

    nodes: int
    meshes: int
    """Different meshes drawn."""
    drawn: tuple[Drawn, ...]
    """Primitives with at least one triangle, drawn at least once."""

    @property
    def triangles(self) -> int:
        """Every copy counted."""
        return sum(item.triangles * item.copies for item in self.drawn)


def draw_scene(glb: Glb, limits: InspectLimits) -> DrawnScene:
    """Walk the default scene (the first, or every root, where the file names none).

    Raises GlbRefused if the node tree or the geometry of any node's mesh is malformed or beyond
    the limits, or if the scene draws no triangle. Triangle counts of Draco-compressed primitives
    are the file's own claim.
    """
    nodes = glb.gltf.nodes or []
    copies = _num_copies(glb, nodes, limits)
    _check_tree(glb, nodes, limits)
    in_scene = _scene_nodes(glb, nodes)
    # Blender builds the meshes of all nodes, also of those outside the scene.
    used = {node.mesh for node in nodes if node.mesh is not None}
    triangles = _check_meshes(glb, sorted(used), limits)
    copies_of_mesh: Counter[int] = Counter()
    for index in in_scene:
        mesh = nodes[index].mesh
        if mesh is not None:
            copies_of_mesh[mesh] += copies[index]
    drawn = tuple(
        Drawn(primitive, count, copies_of_mesh[index])
        for index in sorted(copies_of_mesh)
        for primitive, count in zip(_mesh(glb, index).primitives, triangles[index], strict=True)
        if count and copies_of_mesh[index]
    )
    scene = DrawnScene(len(in_scene), len(copies_of_mesh), drawn)
    if not drawn:
        raise GlbRefused("empty", "the default scene draws no triangle")
    if scene.triangles > limits.max_triangles:
        text = f"{scene.triangles} triangles drawn; the limit is {limits.max_triangles}"
        raise GlbRefused("too_large", text)
    return scene


def _mesh(glb: Glb, index: int) -> Mesh:
    return glb.item(glb.gltf.meshes, index, "mesh")


def _num_copies(glb: Glb, nodes: list[Node], limits: InspectLimits) -> list[int]:
    """How often each node draws its mesh: EXT_mesh_gpu_instancing has a copy per array element."""
    objects = len(nodes)
    copies = []
    for node in nodes:
        instancing = node.extension("EXT_mesh_gpu_instancing")
        if node.mesh is None or instancing is None:
            copies.append(int(node.mesh is not None))
            continue
        arrays = _instance_arrays(glb, instancing)
        counts = {array.count for array in arrays}
        if len(counts) > 1:
            raise GlbRefused("malformed", "EXT_mesh_gpu_instancing: arrays of different lengths")
        copies.append(counts.pop() if counts else 0)
        objects += copies[-1]
        if objects <= limits.max_nodes:
            for array in arrays:
                accessor_arrays(glb, array)
    if objects > limits.max_nodes:
        text = f"{objects} nodes and instances; the limit is {limits.max_nodes}"
        raise GlbRefused("too_large", text)
    return copies


def _instance_arrays(glb: Glb, instancing: dict[str, Any]) -> list[Accessor]:
    attributes = instancing.get("attributes")
    if not isinstance(attributes, dict):
        raise GlbRefused("malformed", "EXT_mesh_gpu_instancing without attributes")
    found = [attributes.get(name) for name in ("TRANSLATION", "ROTATION", "SCALE")]
    indices = [index for index in found if index is not None]
    if not all(type(index) is int for index in indices):
        raise GlbRefused("malformed", "EXT_mesh_gpu_instancing: an attribute is no index")
    return [glb.item(glb.gltf.accessors, index, "accessor") for index in indices]


def _check_tree(glb: Glb, nodes: list[Node], limits: InspectLimits) -> None:
    """Every node has one parent at most, and no node is its own ancestor."""
    parents = [0] * len(nodes)
    for node in nodes:
        for child in node.children or []:
            glb.item(nodes, child, "node")
            parents[child] += 1
            if parents[child] > 1:
                raise GlbRefused("malformed", f"node {child} has several parents")
    level = [index for index, count in enumerate(parents) if count == 0]
    visited = depth = 0
    while level:
        visited += len(level)
        depth += 1
        if depth > limits.max_node_depth:
            text = f"nodes nest deeper than the limit of {limits.max_node_depth}"
            raise GlbRefused("too_large", text)
        level = [child for index in level for child in nodes[index].children or []]
    if visited < len(nodes):
        raise GlbRefused("malformed", "the node tree has a cycle")


def _scene_nodes(glb: Glb, nodes: list[Node]) -> list[int]:
    """The indices of all nodes in the default scene, each once, ascending."""
    scenes = glb.gltf.scenes
    if scenes or glb.gltf.scene is not None:
        roots = glb.item(scenes, glb.gltf.scene or 0, "scene").nodes or []
    else:
        roots = list(range(len(nodes)))
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        index = waiting.pop()
        node = glb.item(nodes, index, "node")
        if index not in seen:
            seen.add(index)
            waiting.extend(node.children or [])
    return sorted(seen)


def _check_meshes(glb: Glb, meshes: list[int], limits: InspectLimits) -> dict[int, list[int]]:
    """Triangles of every primitive of the given meshes, after checking their arrays."""
    triangles: dict[int, list[int]] = {}
    checked: set[tuple[str, int]] = set()
    elements = 0
    for index in meshes:
        triangles[index] = []
        for primitive in _mesh(glb, index).primitives:
            arrays = _primitive_arrays(glb, primitive)
            elements += sum(accessor.count for _, _, accessor in arrays)
            if elements > limits.max_elements:
                text = f"more than {limits.max_elements} vertex attributes and indices"
                raise GlbRefused("too_large", text)
            if primitive.material is not None:
                glb.item(glb.gltf.materials, primitive.material, "material")
            if primitive.extension("KHR_draco_mesh_compression") is None:
                _check_arrays(glb, arrays, checked)
            triangles[index].append(_num_triangles(primitive, arrays))
    return triangles


def _primitive_arrays(glb: Glb, primitive: Primitive) -> list[tuple[str, int, Accessor]]:
    """Name, index and accessor of what the importer reads: positions first; none without them."""
    if "POSITION" not in primitive.attributes:
        return []
    named = [("POSITION", primitive.attributes["POSITION"])]
    named += [(k, v) for k, v in primitive.attributes.items() if k != "POSITION"]
    named += [(k, v) for target in primitive.targets or [] for k, v in target.items()]
    if primitive.indices is not None:
        named.append((_INDICES, primitive.indices))
    return [(name, i, glb.item(glb.gltf.accessors, i, "accessor")) for name, i in named]


def _num_triangles(primitive: Primitive, arrays: list[tuple[str, int, Accessor]]) -> int:
    if not arrays:
        return 0
    corners = (arrays[0] if primitive.indices is None else arrays[-1])[2].count
    mode = _TRIANGLES if primitive.mode is None else primitive.mode
    # What Draco decodes to has its own count.
    if primitive.extension("KHR_draco_mesh_compression") is None and (
        corners % _WHOLE.get(mode, 1) or corners < _LEAST.get(mode, 0)
    ):
        raise GlbRefused("malformed", f"{corners} corners make no primitive of mode {mode}")
    if mode == _TRIANGLES:
        return corners // 3
    if mode in (_STRIP, _FAN):
        return max(corners - 2, 0)
    if mode > _FAN:
        raise GlbRefused("malformed", f"primitive mode {mode} does not exist")
    return 0


def _check_arrays(
    glb: Glb, arrays: list[tuple[str, int, Accessor]], checked: set[tuple[str, int]]
) -> None:
    """Arrays lie within the file, positions are finite, indices name existing vertices."""
    vertices = arrays[0][2].count if arrays else 0
    for name, index, accessor in arrays:
        if name == _INDICES:
            if accessor.type != "SCALAR" or accessor.component_type not in _INDEX_TYPES:
                raise GlbRefused("malformed", "indices are not unsigned integers")
            if any(int(part.max(initial=0)) >= vertices for part in accessor_arrays(glb, accessor)):
                raise GlbRefused("malformed", f"an index exceeds the {vertices} vertices")
            continue
        if accessor.count < vertices:
            raise GlbRefused("malformed", f"{name[:40]} has not a value for each vertex")
        if (name, index) in checked:
            continue
        checked.add((name, index))
        parts = accessor_arrays(glb, accessor)
        if name == "POSITION":
            if accessor.type != "VEC3":
                raise GlbRefused("malformed", f"positions of type {accessor.type[:20]!r}")
            if not all(np.isfinite(part).all() for part in parts):
                raise GlbRefused("malformed", "a vertex position is not finite")
