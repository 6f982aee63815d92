"""Reading of a GLB for Blender: its surface as arrays, its materials as a file to import."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.failures import FailureKind
from glb.document import Item
from glb.geometry.scene_surface import SceneSurface, scene_surface
from glb.geometry.vertex_values import DracoDecoder
from glb.limits import GlbLimits
from glb.parse import read_glb
from glb.shown_materials import shown_primitives
from render.blender.failure import SceneFailure
from render.blender.gltf.base_colour_image import BaseColourImage, base_colour_images
from render.blender.gltf.material_file import write_material_file
from render.blender.gltf.materials import reduce_materials

__all__ = ["PreparedScene", "prepare"]


@dataclass(frozen=True, eq=False)
class PreparedScene:
    """The content of a GLB file, before Blender has seen any of it."""

    surface: SceneSurface
    materials: Mapping[int, Item]
    """The materials of the surface, with only what a picture shows."""
    base_colours: Mapping[int, BaseColourImage]
    """The base colour's image of each of the materials that have one."""
    num_nodes: int
    """Nodes of the default scene that a picture shows."""
    notes: Sequence[str]
    """One line for each thing that the file has but the picture lacks."""


def prepare(
    path: Path,
    limits: GlbLimits,
    material_file: Path,
    draco: DracoDecoder,
    unreadable: Container[int] = (),
) -> PreparedScene:
    """Read a GLB file, and write a GLB from which Blender imports the materials.

    `unreadable` are images that Blender could not read. Raises GlbError for a file that the parser
    rejects or whose base colour cannot be read, and SceneFailure if the file cannot be read.
    """
    try:
        glb = read_glb(path, limits)
    except OSError as error:
        message = f"cannot read the file: {error.strerror}"
        raise SceneFailure(FailureKind.IMPORT_ERROR, message) from None
    document = glb.document
    reduced = reduce_materials(document, shown_primitives(document, glb.tree), unreadable)
    surface = scene_surface(document, glb.tree, reduced.texture_sets, limits.max_triangles, draco)
    materials = {n: reduced.by_index[index] for n, index in enumerate(surface.materials)}
    has_colours = surface.surface.colours is not None
    write_material_file(document, reduced, surface.materials, has_colours, material_file)
    return PreparedScene(
        surface,
        materials,
        base_colour_images(document, materials),
        len(glb.tree.shown),
        reduced.notes,
    )
