"""Loading of a GLB into a scene, normalised to the cube or the sphere, without animation."""

import logging
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import bpy
import numpy as np
from mathutils import Matrix

from core.failures import FailureKind
from render.blender.failure import SceneFailure
from render.blender.gltf.prepare import prepare
from render.blender.normals import flip_inverted_normals
from render.blender.opacity import insert_opacity_nodes
from render.blender.shaders import check_textures, connect_glossiness
from render.job import OpenRequest

__all__ = ["SceneFailure", "open_scene", "world_meshes", "world_triangles"]

_LACKS_EXTENSION = re.compile(r"Extension \S+ is not available")
_BASE_RECURSION = 1000
_RECURSION_PER_LEVEL = 2
"""Nested calls of the importer per level of the node tree, measured with Blender 4.5."""
_MAX_COORDINATE = 1e18
"""Squares of larger coordinates overflow."""
_MAX_DISTANCE = 1e11
"""Distance from the origin in sizes of the object; farther away, double precision loses its shape.
"""


@dataclass(frozen=True)
class _Instance:
    """One appearance of an evaluated mesh in the world."""

    mesh: Any
    matrix: np.ndarray


def open_scene(request: OpenRequest) -> dict[str, Any]:
    """Load and normalise an object; return the fields of `SceneReport`. Raises SceneFailure."""
    started = time.monotonic()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    _import(request)
    imported = time.monotonic()
    num_nodes = len(bpy.data.objects)
    limit = request.limits.max_nodes
    if num_nodes > limit:
        message = f"Blender created {num_nodes} objects; the limit is {limit} nodes"
        raise SceneFailure(FailureKind.TOO_LARGE, message)
    textures = check_textures(request.limits.max_total_pixels)
    flip_inverted_normals()
    num_triangles = _count_triangles(request.limits.max_triangles)
    scale, centre = _normalise(request.normalise)
    connect_glossiness()
    insert_opacity_nodes()
    return {
        "num_nodes": num_nodes,
        "num_triangles": num_triangles,
        "scale": scale,
        "centre": centre,
        **textures,
        "timings": {
            "import": imported - started,
            "evaluate": time.monotonic() - imported,
        },
    }


def world_triangles() -> Iterator[np.ndarray]:
    """Yield the triangles (n, 3, 3) of every instance of every evaluated mesh, in world axes."""
    for vertices, faces in world_meshes():
        yield vertices[faces]


def world_meshes() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield vertices (v, 3) in world axes and faces (f, 3) of every instance of every mesh.

    Meshes are evaluated. Faces are counter-clockwise seen from outside, in mirrored instances too.
    """
    for instance in _instances():
        mesh, matrix = instance.mesh, instance.matrix
        mesh.calc_loop_triangles()
        vertices = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
        mesh.vertices.foreach_get("co", vertices)
        corners = np.empty(len(mesh.loop_triangles) * 3, dtype=np.int32)
        mesh.loop_triangles.foreach_get("vertices", corners)
        faces = corners.reshape(-1, 3)
        if np.linalg.det(matrix[:3, :3]) < 0:
            faces = faces[:, ::-1]  # a reflection reverses the orientation
        yield vertices.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3], faces


def _instances() -> Iterator[_Instance]:
    depsgraph = bpy.context.evaluated_depsgraph_get()
    for item in depsgraph.object_instances:
        if item.object.type == "MESH" and item.show_self:
            yield _Instance(item.object.data, np.array(item.matrix_world, dtype=np.float64))


def _import(request: OpenRequest) -> None:
    """Import the visible parts of the file; skins have the pose that the file's nodes give them.

    Blender can guess the bind pose of a skin, but not its orientation.
    """
    depth = _BASE_RECURSION + _RECURSION_PER_LEVEL * request.limits.max_node_depth
    with tempfile.TemporaryDirectory() as folder, _ImporterErrors() as errors:
        still = Path(folder) / "still.glb"
        prepare(Path(request.glb), request.limits, still)
        try:
            with _recursion_limit(depth):
                bpy.ops.import_scene.gltf(
                    filepath=str(still),
                    loglevel=50,
                    disable_bone_shape=True,
                    guess_original_bind_pose=False,
                    import_select_created_objects=False,
                )
        except RuntimeError as error:
            raise _import_failure(str(error)) from None
    for message in errors.messages:
        # The importer continues without the part of the object that it could not decode.
        if message.startswith("Draco Decoder"):
            raise SceneFailure(FailureKind.IMPORT_ERROR, message[:500])


@contextmanager
def _recursion_limit(depth: int) -> Iterator[None]:
    """Allow this many nested calls, because the importer recurses over the node tree."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, depth))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


class _ImporterErrors(logging.Handler):
    """The errors that the importer logs without raising one."""

    _LOGGERS = ("glTFImporter", "glTFImporter_errors")

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> Self:
        for name in self._LOGGERS:
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        for name in self._LOGGERS:
            # The importer does not remove its own handlers when it fails.
            logging.getLogger(name).handlers.clear()


def _import_failure(report: str) -> SceneFailure:
    """Return the failure with the importer's message, without the location in Blender's code."""
    lines = [line.strip() for line in report.splitlines()]
    lines = [line for line in lines if line and not line.startswith("Location:")]
    message = lines[-1].removeprefix("Error: ") if lines else "the importer gave no reason"
    is_extension = _LACKS_EXTENSION.search(message)
    kind = FailureKind.UNSUPPORTED_EXTENSION if is_extension else FailureKind.IMPORT_ERROR
    return SceneFailure(kind, message[:500])


def _count_triangles(max_triangles: int) -> int:
    """Count the triangles of all instances before they are expanded. Raises SceneFailure."""
    total = 0
    for instance in _instances():
        instance.mesh.calc_loop_triangles()
        total += len(instance.mesh.loop_triangles)
        if total > max_triangles:
            message = f"the scene has more than the limit of {max_triangles} triangles"
            raise SceneFailure(FailureKind.TOO_LARGE, message)
    if total == 0:
        raise SceneFailure(FailureKind.EMPTY, "the scene has no triangle")
    return total


def _normalise(how: str) -> tuple[float, list[float]]:
    """Scale and shift the scene by a new root node; return the scale and the former centre."""
    low, high = _bounds()
    centre = (low + high) / 2
    size = float((high - low).max())
    if how == "sphere":
        size = 2 * max(
            float(np.linalg.norm(triangles.reshape(-1, 3) - centre, axis=1).max())
            for triangles in world_triangles()
            if len(triangles)
        )
    if not size > 0:
        raise SceneFailure(FailureKind.EMPTY, "all vertices of the object are at one point")
    if np.abs(centre).max() > _MAX_DISTANCE * size:
        message = "the object is too far from the origin for double precision to keep its shape"
        raise SceneFailure(FailureKind.REFUSED, message)
    scale = 2 / size
    root = bpy.data.objects.new("normalised", None)
    bpy.context.scene.collection.objects.link(root)
    for item in list(bpy.data.objects):
        if item.parent is None and item is not root:
            item.parent = root
    root.matrix_world = Matrix.Scale(scale, 4) @ Matrix.Translation([-float(x) for x in centre])
    bpy.context.view_layer.update()
    return scale, [float(x) for x in centre]


def _bounds() -> tuple[np.ndarray, np.ndarray]:
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for triangles in world_triangles():
        if not len(triangles):
            continue
        if not np.isfinite(triangles).all():
            raise SceneFailure(FailureKind.REFUSED, "coordinates are infinite or not a number")
        low = np.minimum(low, triangles.min(axis=(0, 1)))
        high = np.maximum(high, triangles.max(axis=(0, 1)))
    if max(-low.min(), high.max()) > _MAX_COORDINATE:
        message = f"coordinates exceed {_MAX_COORDINATE:g}"
        raise SceneFailure(FailureKind.REFUSED, message)
    return low, high
