"""From a GLB to a normalised scene: everything in place, at rest, inside the cube or the sphere."""

import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from render.blender.container import external_files, write_still
from render.blender.opacity import insert_gates
from render.job import FailureKind, OpenRequest

__all__ = ["SceneFailure", "open_scene", "world_triangles"]

_HELPERS = "glTF_not_exported"
"""The collection in which the importer puts shapes that only show bones in the editor."""
_LACKS_EXTENSION = re.compile(r"Extension \S+ is not available")


class SceneFailure(Exception):
    """The object cannot be rendered; `kind` says why."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class _Instance:
    """One appearance of an evaluated mesh in the world."""

    mesh: Any
    matrix: np.ndarray


def open_scene(request: OpenRequest) -> dict[str, Any]:
    """Load and normalise an object; what was found. Raises SceneFailure."""
    started = time.monotonic()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    _import(Path(request.glb))
    imported = time.monotonic()
    _hide_what_is_no_surface()
    _rest()
    num_nodes = len(bpy.data.objects)
    if num_nodes > request.max_nodes:
        raise SceneFailure("too_large", f"{num_nodes} nodes, more than {request.max_nodes}")
    textures = _check_textures(request.max_texture_pixels)
    num_triangles = _count_triangles(request.max_triangles)
    scale, centre = _normalise(request.normalise)
    insert_gates()
    return {
        "num_nodes": num_nodes,
        "num_triangles": num_triangles,
        "scale": scale,
        "centre": centre,
        **textures,
        "timings": {
            "import": round(imported - started, 3),
            "evaluate": round(time.monotonic() - imported, 3),
        },
    }


def world_triangles() -> Iterator[np.ndarray]:
    """The triangles of every instance of every evaluated mesh, in world axes: (n, 3, 3) each."""
    for instance in _instances():
        mesh = instance.mesh
        vertices = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
        mesh.vertices.foreach_get("co", vertices)
        corners = np.empty(len(mesh.loop_triangles) * 3, dtype=np.int32)
        mesh.loop_triangles.foreach_get("vertices", corners)
        world = vertices.reshape(-1, 3) @ instance.matrix[:3, :3].T + instance.matrix[:3, 3]
        yield world[corners].reshape(-1, 3, 3)


def _instances() -> Iterator[_Instance]:
    depsgraph = bpy.context.evaluated_depsgraph_get()
    for found in depsgraph.object_instances:
        if found.object.type == "MESH" and found.show_self:
            yield _Instance(found.object.data, np.array(found.matrix_world, dtype=np.float64))


def _import(path: Path) -> None:
    try:
        others = external_files(path)
    except OSError as error:
        raise SceneFailure("import_error", f"cannot read the file: {error.strerror}") from None
    if others:
        named = ", ".join(repr(uri[:80]) for uri in others[:3])
        raise SceneFailure("refused", f"the file refers to {len(others)} other files: {named}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            still = write_still(path, Path(folder))
            bpy.ops.import_scene.gltf(filepath=str(still), loglevel=50)
        except RuntimeError as error:
            raise _import_failure(str(error)) from None


def _import_failure(report: str) -> SceneFailure:
    """The importer's report without the place in Blender's own code where it was made."""
    lines = [line.strip() for line in report.splitlines()]
    lines = [line for line in lines if line and not line.startswith("Location:")]
    message = lines[-1].removeprefix("Error: ") if lines else "the importer gave no reason"
    lacks = _LACKS_EXTENSION.search(message)
    return SceneFailure("unsupported_extension" if lacks else "import_error", message[:500])


def _hide_what_is_no_surface() -> None:
    """Turn off the file's lights and cameras, and remove the importer's own helper shapes.

    Lights and cameras stay as nodes: what hangs below them would move if they were removed.
    """
    for found in bpy.data.objects:
        found.hide_render = found.hide_render or found.type == "LIGHT"
    bpy.context.scene.camera = None
    helpers = bpy.data.collections.get(_HELPERS)
    for found in list(helpers.all_objects) if helpers else []:
        bpy.data.objects.remove(found, do_unlink=True)


def _rest() -> None:
    """Skins take their rest pose; nodes are where the file places them, for nothing is animated."""
    for found in bpy.data.objects:
        if found.type == "ARMATURE":
            found.data.pose_position = "REST"
    bpy.context.view_layer.update()


def _check_textures(max_pixels: int) -> dict[str, int]:
    pixels = images = 0
    for image in bpy.data.images:
        if image.source not in {"FILE", "GENERATED"} or image.type == "RENDER_RESULT":
            continue
        images += 1
        width, height = image.size
        if width * height == 0:
            # Blender would paint it magenta, without a word.
            raise SceneFailure("import_error", f"the texture {image.name!r} cannot be read")
        pixels += width * height
    if pixels > max_pixels:
        raise SceneFailure("too_large", f"{pixels} texture pixels, more than {max_pixels}")
    return {"num_images": images, "num_texture_pixels": pixels}


def _count_triangles(max_triangles: int) -> int:
    """Count before anything is expanded: instances multiply."""
    total = 0
    for instance in _instances():
        instance.mesh.calc_loop_triangles()
        total += len(instance.mesh.loop_triangles)
        if total > max_triangles:
            raise SceneFailure("too_large", f"more than {max_triangles} triangles")
    if total == 0:
        raise SceneFailure("empty", "the scene has no triangle")
    return total


def _normalise(how: str) -> tuple[float, list[float]]:
    """Put all roots below one node that scales and shifts them together."""
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
        raise SceneFailure("empty", "all of the object lies in one point")
    scale = 2 / size
    root = bpy.data.objects.new("normalised", None)
    bpy.context.scene.collection.objects.link(root)
    for found in list(bpy.data.objects):
        if found.parent is None and found is not root:
            found.parent = root
    root.matrix_world = Matrix.Scale(scale, 4) @ Matrix.Translation([-float(x) for x in centre])
    bpy.context.view_layer.update()
    return scale, [float(x) for x in centre]


def _bounds() -> tuple[np.ndarray, np.ndarray]:
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for triangles in world_triangles():
        if not len(triangles):
            continue
        if not np.isfinite(triangles).all():
            raise SceneFailure("refused", "coordinates are infinite or no numbers")
        low = np.minimum(low, triangles.min(axis=(0, 1)))
        high = np.maximum(high, triangles.max(axis=(0, 1)))
    return low, high
