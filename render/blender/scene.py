"""Loading of a GLB into a scene, normalised to the cube or the sphere, in its stored pose."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from jaxtyping import Bool

from core.failures import FailureKind
from glb.geometry.surface import Surface
from render.blender.failure import SceneFailure
from render.blender.gltf.draco_library import decode_draco
from render.blender.gltf.import_materials import import_materials
from render.blender.gltf.prepare import PreparedScene, prepare
from render.blender.meshes import create_meshes
from render.blender.opacity import insert_opacity_nodes
from render.blender.shaders import (
    check_textures,
    connect_glossiness,
    connect_texture_coordinates,
    image_pixels,
    unreadable_images,
)
from render.blender.surfaces.alpha_texture import AlphaTexture
from render.blender.surfaces.clean import CleanSurface, clean
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
    shells: Bool[np.ndarray, "f"]
    """Faces that are drawn from their front only and do not belong to the object itself."""
    shell_objects: list[Any]
    """Blender's objects of these faces."""
    prepared: PreparedScene
    """The materials of the surface."""
    report: dict[str, Any]
    """The fields of `SceneReport`."""

    @property
    def body(self) -> Surface:
        """The surface without its shells."""
        return self.surface.select(~self.shells)


def open_scene(request: OpenRequest) -> OpenScene:
    """Load and normalise an object. Raises SceneFailure."""
    started = time.monotonic()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    prepared, materials = _import(request)
    imported = time.monotonic()
    textures = check_textures(request.limits.max_total_pixels)
    cleaned = _clean(prepared, request.cull_shells)
    normalised = normalise(cleaned.surface, prepared.surface.reach, request.normalise)
    surface = complete_normals(normalised.surface)
    connect_glossiness()
    connect_texture_coordinates()
    insert_opacity_nodes()
    pass_short_rays()
    objects = create_meshes(surface, materials, cleaned.shells)
    cull_backs(objects)
    drawn = np.unique(surface.materials).tolist()
    used = prepared.base_colours
    images = {used[index].image for index in drawn if index in used}
    report = {
        "num_nodes": prepared.num_nodes,
        "num_triangles": len(surface.faces),
        "special_triangles": {
            "invisible": cleaned.num_invisible,
            "coincident": cleaned.num_coincident,
            "culled": int(cleaned.shells.sum()),
        },
        "num_materials": len(drawn),
        "base_colour_images": sorted(images),
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
        shells=cleaned.shells,
        shell_objects=objects,
        prepared=prepared,
        report=report,
    )


def _import(request: OpenRequest) -> tuple[PreparedScene, list[Any]]:
    """Read the file, and import its materials without the images that Blender cannot read."""
    unreadable: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "materials.glb"
        while True:
            prepared = prepare(Path(request.glb), request.limits, path, decode_draco, unreadable)
            materials = import_materials(path)
            found = unreadable_images()
            if found <= unreadable:
                return prepared, materials
            unreadable |= found
            bpy.ops.wm.read_factory_settings(use_empty=True)


def _clean(prepared: PreparedScene, cull_shells: bool) -> CleanSurface:
    """Return what is drawn of the surface. Raises SceneFailure (`empty`) if that is nothing."""
    surface, materials = prepared.surface.surface, prepared.materials
    result = clean(surface, materials, _alpha_textures(prepared), cull_shells)
    if not len(result.surface.faces):
        # Triangles far from the origin may have lost their area to rounding.
        normalise(surface, prepared.surface.reach, "cube")
        raise SceneFailure(FailureKind.EMPTY, "no triangle has an area and an opacity above 0")
    return result


def _alpha_textures(prepared: PreparedScene) -> dict[int, AlphaTexture]:
    """Return the alpha of each material's base colour; materials share what they have in common."""
    shared: dict[tuple[int, int, int], AlphaTexture] = {}
    textures = {}
    for number, use in prepared.base_colours.items():
        if prepared.materials[number].get("alphaMode") in {"MASK", "BLEND"}:
            key = use.image, use.wrap_s, use.wrap_t
            if key not in shared:
                # A copy, because a view would keep the colours in memory.
                alpha = image_pixels(use.image)[..., 3].copy()
                shared[key] = AlphaTexture(alpha=alpha, wrap_s=use.wrap_s, wrap_t=use.wrap_t)
            textures[number] = shared[key]
    return textures
