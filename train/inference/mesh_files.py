"""A mesh as a file that others open: .glb and .obj with y up, .ply with z up as in the world here.

So Blender's importers, with their defaults, give the same object from all three. Colours are what
the pictures show, light included. A textured .glb says so with KHR_materials_unlit. With colours at
vertices it has no material, because trimesh forgets those colours where there is one; its
`generator` tells who wrote it, and `shown_unlit` adds the material.
"""

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from core.atomic import atomic_write
from core.errors import BadInput
from train.inference.lrm import Shape
from train.inference.texture import bake

__all__ = ["Written", "as_unlit_glb", "check_target", "shown_unlit", "write_mesh"]

_UNLIT = "KHR_materials_unlit"
_GENERATOR = "lrm reconstruct"
_COLOUR = "_COLOR_LINEAR"
_Y_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float64)
"""Rows: glTF's x, y and z in the world's axes (docs/reference/conventions.md)."""
_ENDINGS = (".glb", ".obj", ".ply")


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a mesh is, as geometry."""

    vertices: int
    faces: int
    watertight: bool
    """Closed, every edge shared by two triangles that agree about inside and outside."""
    bodies: int
    """Connected parts."""
    volume: float | None
    """In cubic world units; None if the mesh is not watertight."""


def check_target(path: Path, texture: int | None) -> None:
    """Raise BadInput unless a mesh can be written there as asked for."""
    if path.suffix not in _ENDINGS:
        raise BadInput(f"{path}: meshes are written as {', '.join(_ENDINGS)}")
    if path.is_dir():
        raise BadInput(f"{path}: is a folder")
    if texture is not None and path.suffix == ".ply":
        raise BadInput(f"{path}: a .ply holds vertex colours; leave --texture out, or write a .glb")
    if texture is not None and not 16 <= texture <= 8192:
        raise BadInput(f"--texture {texture}: give 16 to 8192 texels")


def write_mesh(
    shape: Shape, path: Path, *, texture: int | None = None, azimuth: float = 0.0
) -> Written:
    """Write a mesh with vertex colours, or with a texture of that side, and say what it is.

    `azimuth`, in degrees, turns it about the world's z axis. The file appears whole or not at all.
    """
    check_target(path, texture)
    bare = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    watertight = bool(bare.is_watertight and bare.is_winding_consistent)
    mesh = _with_texture(shape, bare, texture) if texture else _with_colours(shape)
    axes = np.eye(4)
    axes[:3, :3] = _turn(azimuth) if path.suffix == ".ply" else _Y_UP @ _turn(azimuth)
    mesh.apply_transform(axes)
    for name, content in _encode(mesh, path).items():
        atomic_write(path.with_name(name), content)
    return Written(
        vertices=len(shape.vertices),
        faces=len(shape.faces),
        watertight=watertight,
        bodies=int(bare.body_count),
        volume=float(bare.volume) if watertight else None,
    )


def shown_unlit(glb: bytes) -> bytes:
    """A .glb that `write_mesh` wrote with colours at vertices, with a material that shows them as
    they are; any other .glb as it is."""
    length, kind = struct.unpack_from("<I4s", glb, 12) if len(glb) > 20 else (0, b"")
    if kind != b"JSON":
        return glb
    try:
        tree = json.loads(glb[20 : 20 + length])
        if tree["asset"].get("generator") != _GENERATOR or tree.get("materials"):
            return glb
        _make_unlit(tree)
    except (ValueError, KeyError, TypeError, AttributeError):
        return glb  # whoever reads it will say what is wrong
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = glb[20 + length :]
    header = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A)
    return header + text + rest


def as_unlit_glb(mesh: trimesh.Trimesh, *, z_up: bool) -> bytes:
    """A mesh that somebody else read from a file, as a .glb that shows its colours as they are."""
    mesh = mesh.copy()
    if z_up:
        axes = np.eye(4)
        axes[:3, :3] = _Y_UP
        mesh.apply_transform(axes)
    if isinstance(mesh.visual, ColorVisuals) and mesh.visual.kind == "vertex":
        _add_linear(mesh, mesh.visual.vertex_colors[:, :3] / 255)
        mesh.visual = ColorVisuals(mesh)

    def finish(tree: dict[str, Any]) -> None:
        _finish(tree)
        _make_unlit(tree)

    return trimesh.exchange.gltf.export_glb(trimesh.Scene(mesh), tree_postprocessor=finish)


def _turn(degrees: float) -> Float[np.ndarray, "3 3"]:
    """A rotation about z, counter-clockwise seen from above."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _with_colours(shape: Shape) -> trimesh.Trimesh:
    rgb = shape.colour(shape.vertices)
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    mesh.visual = ColorVisuals(mesh, vertex_colors=np.rint(rgb * 255).astype(np.uint8))
    _add_linear(mesh, rgb)
    return mesh


def _add_linear(mesh: trimesh.Trimesh, srgb: Float[np.ndarray, "n 3"]) -> None:
    """COLOR_0 to be. Eight bits are too few for dark tones of linear light; trimesh reads no 16."""
    rgba = np.concatenate([_linear(srgb), np.ones_like(srgb[:, :1])], axis=1)
    mesh.vertex_attributes[_COLOUR] = rgba.astype(np.float32)


def _with_texture(shape: Shape, bare: trimesh.Trimesh, size: int) -> trimesh.Trimesh:
    baked = bake(shape, size)
    return trimesh.Trimesh(
        shape.vertices[baked.rows],
        baked.faces,
        vertex_normals=bare.vertex_normals[baked.rows],  # smooth across the seams
        visual=TextureVisuals(uv=baked.uv, image=baked.texture),
        process=False,
    )


def _linear(srgb: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Linear light of sRGB values (IEC 61966-2-1): what glTF's COLOR_0 holds."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _encode(mesh: trimesh.Trimesh, path: Path) -> dict[str, bytes]:
    """The files' names and contents; the one that was asked for comes last."""
    return _ENCODERS[path.suffix](mesh, path)


def _glb(mesh: trimesh.Trimesh, path: Path) -> dict[str, bytes]:
    if isinstance(mesh.visual, TextureVisuals):
        material = PBRMaterial(
            baseColorTexture=mesh.visual.material.image, metallicFactor=0.0, roughnessFactor=1.0
        )
        mesh.visual = TextureVisuals(uv=mesh.visual.uv, material=material)
    else:
        mesh.visual = ColorVisuals(mesh)  # its colours come as an attribute
    scene = trimesh.Scene(mesh)
    return {
        path.name: trimesh.exchange.gltf.export_glb(
            scene, include_normals=True, tree_postprocessor=_finish
        )
    }


def _finish(tree: dict[str, Any]) -> None:
    """COLOR_0 under its name, and the material of a texture unlit."""
    tree["asset"]["generator"] = _GENERATOR
    for primitive in _primitives(tree):
        attributes = primitive["attributes"]
        if _COLOUR in attributes:
            attributes["COLOR_0"] = attributes.pop(_COLOUR)
    if tree.get("materials"):
        _make_unlit(tree)


def _make_unlit(tree: dict[str, Any]) -> None:
    """One material for all, which shows colours as they are."""
    if not tree.get("materials"):
        plain = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        tree["materials"] = [{"pbrMetallicRoughness": plain}]
    tree["materials"][0]["extensions"] = {_UNLIT: {}}
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", ()), _UNLIT})
    for primitive in _primitives(tree):
        primitive["material"] = 0


def _primitives(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for mesh in tree["meshes"]:
        yield from mesh["primitives"]


def _obj(mesh: trimesh.Trimesh, path: Path) -> dict[str, bytes]:
    if not isinstance(mesh.visual, TextureVisuals):
        return {path.name: trimesh.exchange.obj.export_obj(mesh).encode()}
    material = SimpleMaterial(
        image=mesh.visual.material.image, diffuse=(255, 255, 255), ambient=(255, 255, 255)
    )
    name = re.sub(r"\s", "_", path.stem)  # a space ends a name in these files
    material.name = name
    mesh.visual = TextureVisuals(uv=mesh.visual.uv, material=material)
    text, others = trimesh.exchange.obj.export_obj(
        mesh, return_texture=True, mtl_name=f"{name}.mtl"
    )
    return {**others, path.name: text.encode()}


def _ply(mesh: trimesh.Trimesh, path: Path) -> dict[str, bytes]:
    mesh.vertex_attributes.clear()
    return {path.name: trimesh.exchange.ply.export_ply(mesh, vertex_normal=False)}


_ENCODERS: dict[str, Callable[[trimesh.Trimesh, Path], dict[str, bytes]]] = {
    ".glb": _glb,
    ".obj": _obj,
    ".ply": _ply,
}
