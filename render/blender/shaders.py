"""The node trees of imported materials: the check of textures, and inputs left unconnected."""

from collections.abc import Iterator
from typing import Any

import bpy
import numpy as np
from jaxtyping import Float32

from core.failures import FailureKind
from render.blender.failure import SceneFailure
from render.blender.gltf.material_file import image_name, uv_layer_name
from render.blender.gltf.materials import GLOSSINESS

__all__ = [
    "check_textures",
    "connect_glossiness",
    "connect_texture_coordinates",
    "has_linear_pixels",
    "image_pixels",
    "node_trees",
    "unreadable_images",
]


def check_textures(max_pixels: int) -> dict[str, int]:
    """Count images and their pixels; return the fields of `SceneReport`.

    Raises SceneFailure: `import_error` if an image is missing, because Blender would render the
    surface in magenta without an error; `too_large` for too many pixels.
    """
    for tree in node_trees():
        if any(node.type == "TEX_IMAGE" and node.image is None for node in tree.nodes):
            raise SceneFailure(FailureKind.IMPORT_ERROR, "a texture has no image")
    sizes = [image.size for image in _images()]
    pixels = sum(width * height for width, height in sizes)
    if pixels > max_pixels:
        message = f"the textures have {pixels} pixels; the limit is {max_pixels}"
        raise SceneFailure(FailureKind.TOO_LARGE, message)
    return {"num_images": len(sizes), "num_texture_pixels": pixels}


def unreadable_images() -> set[int]:
    """Return the images, by their index in the file, that Blender could not read."""
    names = [image.name for image in _images() if 0 in tuple(image.size)]
    return {int(name.split()[1].partition(".")[0]) for name in names}


def image_pixels(index: int) -> Float32[np.ndarray, "h w 4"]:
    """Return the values of an image of the file, the top row first (`has_linear_pixels`)."""
    image = bpy.data.images[image_name(index)]
    pixels = np.empty(len(image.pixels), dtype=np.float32)
    image.pixels.foreach_get(pixels)
    width, height = image.size
    return pixels.reshape(height, width, 4)[::-1]


def has_linear_pixels(index: int) -> bool:
    """Return whether Blender has decoded an image's colours to linear values.

    It does so for images of more than 8 bits; the values of others are as in the file.
    """
    return bool(bpy.data.images[image_name(index)].is_float)


def _images() -> list[Any]:
    return [
        image
        for image in bpy.data.images
        if image.source in {"FILE", "GENERATED"} and image.type != "RENDER_RESULT"
    ]


def connect_glossiness() -> None:
    """Connect roughness = 1 - factor * alpha, of the texture of specular colour and glossiness.

    For materials whose glossiness `gltf.materials` deferred.
    """
    for material in bpy.data.materials:
        factor = material.get(GLOSSINESS)
        if factor is None:
            continue
        tree = material.node_tree
        texture = next(node for node in tree.nodes if node.label == "SPECULAR COLOR")
        surface = next(node for node in tree.nodes if node.type == "BSDF_PRINCIPLED")
        roughness = tree.nodes.new("ShaderNodeMath")
        roughness.operation = "MULTIPLY_ADD"
        roughness.inputs[1].default_value = -factor
        roughness.inputs[2].default_value = 1.0
        tree.links.new(texture.outputs["Alpha"], roughness.inputs[0])
        tree.links.new(roughness.outputs[0], surface.inputs["Roughness"])


def connect_texture_coordinates() -> None:
    """Name the set of textures that have none, which Blender would let show any set of a mesh.

    The importer leaves it out for TEXCOORD_0. A set that a mesh does not have is zero.
    """
    for tree in node_trees():
        for node in list(tree.nodes):
            if node.type == "TEX_IMAGE" and not node.inputs["Vector"].is_linked:
                coordinates = tree.nodes.new("ShaderNodeUVMap")
                coordinates.uv_map = uv_layer_name(0)
                tree.links.new(coordinates.outputs[0], node.inputs["Vector"])


def node_trees() -> Iterator[Any]:
    """Yield the node trees of all materials."""
    for material in bpy.data.materials:
        if material.node_tree is not None:
            yield material.node_tree
