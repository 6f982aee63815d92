"""A GLB with the materials of a scene on one small triangle each, which Blender's importer reads.

The importer turns materials into node trees; meshes are built from arrays (render.blender.meshes).
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glb.container import write_glb
from glb.document import Document, Item
from glb.extensions import REMOVED_EXTENSIONS
from glb.shown_materials import texture_coordinate_set, texture_slots

__all__ = ["COLOUR_LAYER", "image_name", "material_name", "uv_layer_name", "write_material_file"]

COLOUR_LAYER = "Color"
"""Name that the importer gives the layer of COLOR_0."""
_KEPT = ("bufferViews", "images", "materials", "samplers", "textures")
_REMOVED = REMOVED_EXTENSIONS | {"EXT_mesh_gpu_instancing", "KHR_draco_mesh_compression"}


def material_name(number: int) -> str:
    """Return the name of the mesh that shows a material, by its place among the drawn ones."""
    return f"material {number}"


def image_name(index: int) -> str:
    """Return the name of an image in the file; Blender adds a suffix to copies."""
    return f"image {index}"


def uv_layer_name(number: int) -> str:
    """Return the name that the importer gives the layer of a TEXCOORD set."""
    return "UVMap" if number == 0 else f"UVMap.{number:03d}"


def write_material_file(
    document: Document,
    materials: Mapping[int, Item],
    drawn: Sequence[int],
    has_colours: bool,
    path: Path,
) -> None:
    """Write the drawn materials, with the images of the document and one triangle per material.

    With `has_colours` every base colour is multiplied by the vertex colours.
    """
    content: dict[str, Any] = {"asset": {"version": "2.0"}, "scene": 0}
    content |= {name: list(document.items(name)) for name in _KEPT if document.items(name)}
    # Blender's image then says which image of the file it shows.
    content["images"] = [
        item | {"name": image_name(index)} for index, item in enumerate(document.items("images"))
    ]
    for group in ("extensionsUsed", "extensionsRequired"):
        names = document.json.get(group) or []
        content[group] = [name for name in names if name not in _REMOVED]
    slots = [slot for index in drawn for _, slot in texture_slots(materials[index])]
    sets = {texture_coordinate_set(slot) for slot in slots}
    content["buffers"] = [*document.items("buffers")]
    attributes = _add_triangle(content, sets, has_colours)
    content["meshes"] = [
        {
            "name": material_name(number),
            "primitives": [{"attributes": attributes, "material": index}],
        }
        for number, index in enumerate(drawn)
    ]
    content["nodes"] = [{"mesh": number} for number in range(len(drawn))]
    content["scenes"] = [{"nodes": list(range(len(drawn)))}]
    write_glb(path, content, document.container.rest)


def _add_triangle(content: dict[str, Any], sets: set[int], has_colours: bool) -> Item:
    """Add a buffer with the attributes of three vertices; return the accessors by name."""
    arrays = {"POSITION": np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")}
    # The importer stops at the first missing set.
    for number in range(max(sets, default=-1) + 1):
        arrays[f"TEXCOORD_{number}"] = np.zeros((3, 2), "<f4")
    if has_colours:
        arrays["COLOR_0"] = np.ones((3, 4), "<f4")
    data = b"".join(array.tobytes() for array in arrays.values())
    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    content["buffers"].append({"byteLength": len(data), "uri": uri})
    content["bufferViews"] = [*content.get("bufferViews", [])]
    content["accessors"] = []
    start = 0
    for array in arrays.values():
        view = {"buffer": len(content["buffers"]) - 1, "byteOffset": start}
        content["bufferViews"].append(view | {"byteLength": array.nbytes})
        kind = f"VEC{array.shape[1]}"
        view_index = len(content["bufferViews"]) - 1
        content["accessors"].append(
            {"bufferView": view_index, "componentType": 5126, "count": 3, "type": kind}
        )
        start += array.nbytes
    return {name: number for number, name in enumerate(arrays)}
