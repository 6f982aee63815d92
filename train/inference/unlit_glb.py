"""Meshes of any program as .glb files with an unlit material, which show their colours unchanged.

A confined process imports this module, so it imports neither torch nor a configuration.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float
from trimesh.visual import ColorVisuals

__all__ = ["Y_UP", "add_linear_colours", "finish_glb", "mesh_as_glb"]

_UNLIT = "KHR_materials_unlit"
_GENERATOR = "lrm reconstruct"
_COLOUR = "_COLOR_LINEAR"
"""Temporary name of the attribute that becomes COLOR_0."""
Y_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float64)
"""Rows: glTF's x, y and z in world axes (docs/reference/conventions.md)."""


def mesh_as_glb(path: str) -> tuple[bool, bytes]:
    """Return a mesh file as a .glb for Blender; vertex colours of `lrm reconstruct` become unlit.

    The first value is False, without bytes, for a .glb that needs no change. Called in a confined
    process, which reports any error by its name.
    """
    file = Path(path)
    if file.suffix.lower() == ".glb":
        data = file.read_bytes()
        unlit = _add_unlit_material(data)
        return unlit != data, b"" if unlit == data else unlit
    return True, _encode_unlit_glb(trimesh.load_mesh(file), z_up=file.suffix.lower() == ".ply")


def _add_unlit_material(glb: bytes) -> bytes:
    """Add an unlit material to a .glb that `write_mesh` wrote with vertex colours.

    Any other content is returned unchanged.
    """
    length, kind = struct.unpack_from("<I4s", glb, 12) if len(glb) > 20 else (0, b"")
    if kind != b"JSON":
        return glb
    try:
        tree = json.loads(glb[20 : 20 + length])
        if tree["asset"].get("generator") != _GENERATOR or tree.get("materials"):
            return glb
        _make_unlit(tree)
    except (ValueError, KeyError, TypeError, AttributeError):
        return glb  # the reader of the file reports what is wrong
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = glb[20 + length :]
    header = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A)
    return header + text + rest


def _encode_unlit_glb(mesh: trimesh.Trimesh, *, z_up: bool) -> bytes:
    """Encode a mesh of another program as a .glb with an unlit material.

    `z_up`: the mesh has z up instead of glTF's y up.
    """
    mesh = mesh.copy()
    if z_up:
        axes = np.eye(4)
        axes[:3, :3] = Y_UP
        mesh.apply_transform(axes)
    if isinstance(mesh.visual, ColorVisuals) and mesh.visual.kind == "vertex":
        add_linear_colours(mesh, mesh.visual.vertex_colors[:, :3] / 255)
        mesh.visual = ColorVisuals(mesh)

    def finish(tree: dict[str, Any]) -> None:
        finish_glb(tree)
        _make_unlit(tree)

    return trimesh.exchange.gltf.export_glb(trimesh.Scene(mesh), tree_postprocessor=finish)


def add_linear_colours(mesh: trimesh.Trimesh, srgb: Float[np.ndarray, "n 3"]) -> None:
    """Add linear float32 colours, which `finish_glb` renames to COLOR_0.

    Eight bits are too coarse for dark linear colours, and trimesh does not read 16 bits.
    """
    rgba = np.concatenate([_linear(srgb), np.ones_like(srgb[:, :1])], axis=1)
    mesh.vertex_attributes[_COLOUR] = rgba.astype(np.float32)


def _linear(srgb: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Convert sRGB to linear values (IEC 61966-2-1), as glTF's COLOR_0 requires."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def finish_glb(tree: dict[str, Any]) -> None:
    """Set the generator, rename the colour attribute to COLOR_0 and make a texture unlit."""
    tree["asset"]["generator"] = _GENERATOR
    for primitive in _primitives(tree):
        attributes = primitive["attributes"]
        if _COLOUR in attributes:
            attributes["COLOR_0"] = attributes.pop(_COLOUR)
    if tree.get("textures"):
        _make_unlit(tree)


def _make_unlit(tree: dict[str, Any]) -> None:
    """Give all primitives the same unlit material."""
    if not tree.get("materials"):
        factors = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        tree["materials"] = [{"pbrMetallicRoughness": factors}]
    tree["materials"][0]["extensions"] = {_UNLIT: {}}
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", ()), _UNLIT})
    for primitive in _primitives(tree):
        primitive["material"] = 0


def _primitives(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for mesh in tree["meshes"]:
        yield from mesh["primitives"]
