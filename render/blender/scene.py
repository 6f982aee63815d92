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

from core.failures import FailureKind
from glb.document import Item
from glb.geometry.surface import Surface
from glb.shown_materials import least_opacity
from render.blender.failure import SceneFailure
from render.blender.gltf.base_colour_image import BaseColourImage
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
from render.blender.surfaces.normalise import Normalised, check_distance, compose, normalise
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
    materials: Mapping[int, Item]
    """The materials of the surface, with only what a picture shows."""
    base_colours: Mapping[int, BaseColourImage]
    """The base colour's image of each of the materials that have one."""
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
    cleaned, normalised = _clean(prepared, request)
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
        "centre": normalised.centre.tolist(),
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
        materials=prepared.materials,
        base_colours=used,
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


def _clean(prepared: PreparedScene, request: OpenRequest) -> tuple[CleanSurface, Normalised]:
    """Apply the rules to the surface, and normalise what is drawn of it.

    Raises SceneFailure: `empty` if nothing is drawn, `refused` if it is too far from the origin.
    """
    # The rules compare squares and products of coordinates, which may be of any size in the file.
    whole = normalise(prepared.surface.surface, "cube")
    textures = _alpha_textures(prepared)
    cleaned = clean(whole.surface, prepared.materials, textures, request.cull_shells)
    if not len(cleaned.surface.faces):
        # Triangles far from the origin may have lost their area to rounding.
        check_distance(whole, prepared.surface.reach)
        raise SceneFailure(FailureKind.EMPTY, "no triangle has an area and an opacity above 0")
    normalised = compose(whole, normalise(cleaned.surface, request.normalise))
    check_distance(normalised, prepared.surface.reach)
    return cleaned, normalised


def _alpha_textures(prepared: PreparedScene) -> dict[int, AlphaTexture]:
    """Return the alpha of each material's base colour; materials share what they have in common."""
    shared: dict[tuple[int, int, int], AlphaTexture] = {}
    textures = {}
    for number, use in prepared.base_colours.items():
        if least_opacity(prepared.materials[number]) is not None:
            key = use.image, use.wrap_s, use.wrap_t
            if key not in shared:
                # A copy, because a view would keep the colours in memory.
                alpha = image_pixels(use.image)[..., 3].copy()
                shared[key] = AlphaTexture(alpha=alpha, wrap_s=use.wrap_s, wrap_t=use.wrap_t)
            textures[number] = shared[key]
    return textures
