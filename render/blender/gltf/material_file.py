"""A GLB with the materials of a scene on one small triangle each, which Blender's importer reads.

The importer turns materials into node trees; meshes are built from arrays (render.blender.meshes).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glb.container import write_glb
from glb.document import Document, Item
from glb.shown_materials import image_of_texture, texture_coordinate_set, texture_slots
from render.blender.gltf.materials import ReducedMaterials

__all__ = ["COLOUR_LAYER", "MESH_NAME", "image_name", "uv_layer_name", "write_material_file"]

COLOUR_LAYER = "Color"
"""Name that the importer gives the layer of COLOR_0."""
MESH_NAME = "materials"
"""Name of the mesh with the materials, in their order."""


def image_name(index: int) -> str:
    """Return the name of an image in the file; Blender adds a suffix to copies."""
    return f"image {index}"


def uv_layer_name(number: int) -> str:
    """Return the name that the importer gives the layer of a TEXCOORD set."""
    return "UVMap" if number == 0 else f"UVMap.{number:03d}"


def write_material_file(
    document: Document,
    reduced: ReducedMaterials,
    drawn: Sequence[int],
    has_colours: bool,
    path: Path,
) -> None:
    """Write the drawn materials, with their images and one triangle per material.

    With `has_colours` every base colour is multiplied by the vertex colours.
    """
    slots = [slot for index in drawn for _, slot in texture_slots(reduced.by_index[index])]
    shown = set(drawn)
    content: dict[str, Any] = {"asset": {"version": "2.0"}, "scene": 0, "bufferViews": []}
    content["samplers"] = document.items("samplers")
    content["materials"] = [
        reduced.by_index[index] if index in shown else {}
        for index in range(len(document.items("materials")))
    ]
    content["extensionsUsed"] = sorted(
        {name for index in drawn for name in reduced.by_index[index]["extensions"]}
        | {"KHR_texture_transform"}
    )
    data = bytearray()
    _add_images(content, data, document, reduced.converted, slots)
    sets = {texture_coordinate_set(slot) for slot in slots}
    attributes = _add_triangle(content, data, sets, has_colours)
    # One mesh: with one for each of thousands of materials, the importer takes minutes.
    primitives = [{"attributes": attributes, "material": index} for index in drawn]
    content["meshes"] = [{"name": MESH_NAME, "primitives": primitives}]
    content["nodes"] = [{"mesh": 0}]
    content["scenes"] = [{"nodes": [0]}]
    content["buffers"] = [{"byteLength": len(data)}]
    write_glb(path, {name: part for name, part in content.items() if part}, data)


def _add_images(
    content: dict[str, Any],
    data: bytearray,
    document: Document,
    converted: Mapping[int, bytes],
    slots: Sequence[Item],
) -> None:
    """Add the images of the texture slots; unused textures and images keep their places, empty."""
    content["textures"] = [{} for _ in document.items("textures")]
    # Blender's image then says which image of the file it shows.
    content["images"] = [{"name": image_name(i)} for i in range(len(document.items("images")))]
    for slot in slots:
        index = image_of_texture(document, slot)
        sampler = document.item("textures", slot["index"]).get("sampler")
        texture = {"source": index} | ({} if sampler is None else {"sampler": sampler})
        content["textures"][slot["index"]] = texture
        image = content["images"][index]
        if "bufferView" not in image:
            encoded = converted.get(index, document.image(index))
            image["bufferView"] = _add_view(content, data, encoded)
            kind = document.item("images", index).get("mimeType")
            image["mimeType"] = "image/png" if index in converted or kind is None else kind


def _add_triangle(
    content: dict[str, Any], data: bytearray, sets: set[int], has_colours: bool
) -> Item:
    """Add the attributes of three vertices; return the accessors by name."""
    arrays = {"POSITION": np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")}
    # The importer stops at the first missing set.
    for number in range(max(sets, default=-1) + 1):
        arrays[f"TEXCOORD_{number}"] = np.zeros((3, 2), "<f4")
    if has_colours:
        arrays["COLOR_0"] = np.ones((3, 4), "<f4")
    content["accessors"] = [
        {
            "bufferView": _add_view(content, data, array.tobytes()),
            "componentType": 5126,
            "count": 3,
            "type": f"VEC{array.shape[1]}",
        }
        for array in arrays.values()
    ]
    return {name: number for number, name in enumerate(arrays)}


def _add_view(content: dict[str, Any], data: bytearray, part: bytes | memoryview) -> int:
    """Append bytes to the data; return the index of their buffer view."""
    view = {"buffer": 0, "byteOffset": len(data), "byteLength": len(part)}
    content["bufferViews"].append(view)
    data += part
    data += b"\0" * (-len(data) % 4)
    return len(content["bufferViews"]) - 1
