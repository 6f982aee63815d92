"""Mesh files: .glb and .obj with y up, .ply with z up as in this project's world axes.

With these axes, Blender's importers give the same object from all three with their default
settings. Colours include the lighting of the training images. A textured .glb therefore has an
unlit material (KHR_materials_unlit). A .glb with vertex colours has no material, because trimesh
drops vertex colours of meshes with a material; `lrm evaluate` adds an unlit material to such a
file, which it recognises by the `generator` field (`unlit_glb.py`). A .glb without colours has a
plain grey material that light shades, as nothing else shows its shape.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import trimesh
from jaxtyping import Float
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from core.atomic import atomic_write
from core.errors import BadInput
from train.inference.reconstruction import Shape
from train.inference.texture import bake
from train.inference.unlit_glb import Y_UP, add_linear_colours, finish_glb

__all__ = ["MeshSummary", "check_mesh_path", "write_mesh"]

_ENDINGS = (".glb", ".obj", ".ply")
_GREY = (180, 180, 180, 255)
"""Base colour of a mesh without colours, sRGB."""


@dataclass(frozen=True, kw_only=True)
class MeshSummary:
    """Geometric properties of a mesh that was written."""

    vertices: int
    faces: int
    watertight: bool
    """Whether every edge is shared by two triangles with consistent orientation."""
    bodies: int
    """Number of connected parts."""
    volume: float | None
    """Volume in cubic world units; None if the mesh is not watertight."""


def check_mesh_path(path: Path, texture: int | None) -> None:
    """Raise BadInput if a mesh with that texture size cannot be written to the path."""
    if path.suffix not in _ENDINGS:
        raise BadInput(f"{path}: unknown format; meshes are written as {', '.join(_ENDINGS)}")
    if path.is_dir():
        raise BadInput(f"{path}: is a folder; give a file name")
    if texture is not None and path.suffix == ".ply":
        raise BadInput(f"{path}: a .ply holds vertex colours; leave --texture out, or write a .glb")
    if texture is not None and not 16 <= texture <= 8192:
        raise BadInput(f"--texture {texture}: give 16 to 8192 texels")


def write_mesh(
    shape: Shape, path: Path, *, texture: int | None = None, azimuth: float = 0.0
) -> MeshSummary:
    """Write a mesh and return its geometric properties.

    The mesh has vertex colours if the shape has colours, or with `texture` a texture of that side
    in texels. It is turned `azimuth` degrees about the world's z axis. Each file is written
    atomically. Raises BadInput for a path or texture that `check_mesh_path` rejects, and for a
    texture of a shape without colours.
    """
    check_mesh_path(path, texture)
    bare = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    watertight = bool(bare.is_watertight and bare.is_winding_consistent)
    mesh = _with_texture(shape, bare, texture) if texture else _with_colours(shape)
    axes = np.eye(4)
    turn = _rotation_about_z(azimuth)
    axes[:3, :3] = turn if path.suffix == ".ply" else Y_UP @ turn
    mesh.apply_transform(axes)
    for name, content in _encode(mesh, path).items():
        atomic_write(path.with_name(name), content)
    return MeshSummary(
        vertices=len(shape.vertices),
        faces=len(shape.faces),
        watertight=watertight,
        bodies=int(bare.body_count),
        volume=float(bare.volume) if watertight else None,
    )


def _rotation_about_z(degrees: float) -> Float[np.ndarray, "3 3"]:
    """Return the matrix of a rotation about z, counter-clockwise seen from above."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _with_colours(shape: Shape) -> trimesh.Trimesh:
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    if shape.colour is None:
        return mesh
    rgb = shape.colour(shape.vertices)
    mesh.visual = ColorVisuals(mesh, vertex_colors=np.rint(rgb * 255).astype(np.uint8))
    add_linear_colours(mesh, rgb)
    return mesh


def _with_texture(shape: Shape, bare: trimesh.Trimesh, size: int) -> trimesh.Trimesh:
    baked = bake(shape, size)
    return trimesh.Trimesh(
        shape.vertices[baked.source_vertices],
        baked.faces,
        vertex_normals=bare.vertex_normals[baked.source_vertices],  # smooth across the seams
        visual=TextureVisuals(uv=baked.uv, image=baked.texture),
        process=False,
    )


def _encode(mesh: trimesh.Trimesh, path: Path) -> dict[str, bytes]:
    """Return the content of every file by name; the file at `path` comes last."""
    return _ENCODERS[path.suffix](mesh, path)


def _glb(mesh: trimesh.Trimesh, path: Path) -> dict[str, bytes]:
    rough = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    if isinstance(mesh.visual, TextureVisuals):
        material = PBRMaterial(baseColorTexture=mesh.visual.material.image, **rough)
        mesh.visual = TextureVisuals(uv=mesh.visual.uv, material=material)
    elif not mesh.vertex_attributes:
        mesh.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=_GREY, **rough))
    else:
        mesh.visual = ColorVisuals(mesh)  # the colours are in an attribute
    scene = trimesh.Scene(mesh)
    return {
        path.name: trimesh.exchange.gltf.export_glb(
            scene, include_normals=True, tree_postprocessor=finish_glb
        )
    }


def _obj(mesh: trimesh.Trimesh, path: Path) -> dict[str, bytes]:
    if not isinstance(mesh.visual, TextureVisuals):
        return {path.name: trimesh.exchange.obj.export_obj(mesh).encode()}
    material = SimpleMaterial(
        image=mesh.visual.material.image, diffuse=(255, 255, 255), ambient=(255, 255, 255)
    )
    # The whole name, so that chair.obj does not replace the picture chair.png that it was made of.
    # .obj and .mtl end a name at a space.
    name = re.sub(r"[\s%]", lambda character: quote(character[0]), path.name)
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
