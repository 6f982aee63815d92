"""Loading of a GLB into a scene, normalised to the cube or the sphere, in its stored pose."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from jaxtyping import Bool

from glb.document import Item
from glb.surface import Surface
from render.blender.gltf.draco_library import decode_draco
from render.blender.gltf.import_materials import import_materials
from render.blender.gltf.prepare import PreparedScene, prepare
from render.blender.meshes import create_meshes
from render.blender.opacity import insert_opacity_nodes
from render.blender.shaders import check_textures, connect_glossiness, unreadable_images
from render.blender.surfaces.complete_normals import complete_normals
from render.blender.surfaces.normalise import normalise
from render.blender.transparency import cull_backs, pass_short_rays
from render.job import OpenRequest

__all__ = ["OpenScene", "open_scene"]


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenScene:
    """The object that is open in Blender."""

    surface: Surface
    """What is drawn, in the normalised frame; every vertex of a face has a normal."""
    hulls: Bool[np.ndarray, "f"]
    """Faces that are seen from their front only and do not belong to the object itself."""
    hull_objects: list[Any]
    """Blender's objects of these faces."""
    materials: Mapping[int, Item]
    """The materials of the surface, as in the file."""
    report: dict[str, Any]
    """The fields of `SceneReport`."""

    @property
    def body(self) -> Surface:
        """The surface without its hulls."""
        return self.surface.select(~self.hulls)


def open_scene(request: OpenRequest) -> OpenScene:
    """Load and normalise an object. Raises SceneFailure."""
    started = time.monotonic()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    prepared, materials = _import(request)
    imported = time.monotonic()
    textures = check_textures(request.limits.max_total_pixels)
    surface, dropped = _clean(prepared)
    normalised = normalise(surface, prepared.surface.reach, request.normalise)
    surface = complete_normals(normalised.surface)
    hulls = np.zeros(len(surface.faces), dtype=bool)
    connect_glossiness()
    insert_opacity_nodes()
    pass_short_rays()
    objects = create_meshes(surface, materials, hulls)
    cull_backs(objects)
    report = {
        "num_nodes": prepared.num_nodes,
        "num_triangles": len(surface.faces),
        "dropped_triangles": dropped,
        "notes": list(prepared.notes),
        "scale": normalised.scale,
        "centre": list(normalised.centre),
        **textures,
        "timings": {
            "import": imported - started,
            "evaluate": time.monotonic() - imported,
        },
    }
    return OpenScene(
        surface=surface,
        hulls=hulls,
        hull_objects=objects,
        materials=prepared.materials,
        report=report,
    )


def _import(request: OpenRequest) -> tuple[PreparedScene, dict[int, Any]]:
    """Read the file, and import its materials without the images that Blender cannot read."""
    unreadable: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "materials.glb"
        while True:
            prepared = prepare(Path(request.glb), request.limits, path, decode_draco, unreadable)
            materials = import_materials(path, prepared.materials)
            found = unreadable_images()
            if found <= unreadable:
                return prepared, materials
            unreadable |= found
            bpy.ops.wm.read_factory_settings(use_empty=True)


def _clean(prepared: PreparedScene) -> tuple[Surface, dict[str, int]]:
    return prepared.surface.surface, {}
