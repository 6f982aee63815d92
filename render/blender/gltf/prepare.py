"""Conversion of a GLB to one that Blender imports quickly and completely."""

from pathlib import Path

from core.failures import FailureKind
from glb.container import write_glb
from glb.document import Item
from glb.extensions import SETTLED_EXTENSIONS
from glb.limits import GlbLimits
from glb.parse import read_glb
from glb.shown_materials import shown_primitives
from render.blender.failure import SceneFailure
from render.blender.gltf.coordinates import sanitise_values
from render.blender.gltf.materials import reduce_materials
from render.blender.gltf.nodes import prune_nodes, prune_primitives

__all__ = ["prepare"]

_NOT_SHOWN = ("animations", "cameras", "extensions", "extras")


def prepare(path: Path, limits: GlbLimits, copy: Path) -> None:
    """Write a copy of a GLB with only what a still image shows.

    Raises GlbError for a file that the parser rejects, and SceneFailure (`import_error`) for one
    that cannot be read or has a truncated image.
    """
    try:
        glb = read_glb(path, limits)
    except OSError as error:
        message = f"cannot read the file: {error.strerror}"
        raise SceneFailure(FailureKind.IMPORT_ERROR, message) from None
    document = glb.document
    primitives = shown_primitives(document, glb.tree)
    prune_nodes(document, glb.tree)
    prune_primitives(document, primitives)
    sanitise_values(document, primitives)
    reduce_materials(document, primitives)
    _prune_document(document.json)
    write_glb(copy, document.json, document.container.rest)


def _prune_document(document: Item) -> None:
    """Remove what the importer need not read, and extensions that are already applied."""
    for name in _NOT_SHOWN:
        document.pop(name, None)
    document["asset"] = {"version": "2.0"}
    for group in ("extensionsUsed", "extensionsRequired"):
        names = document.get(group) or []
        document[group] = [name for name in names if name not in SETTLED_EXTENSIONS]
