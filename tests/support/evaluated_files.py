"""The surface of a file as the Blender child evaluates it, without Blender."""

from pathlib import Path
from typing import Any

import numpy as np

from glb.geometry.scene_surface import SceneSurface, scene_surface
from glb.limits import GlbLimits
from glb.parse import read_glb
from glb.shown_materials import shown_primitives
from render.blender.gltf.materials import ReducedMaterials, reduce_materials
from tests.support.gltf_builder import GltfBuilder

__all__ = ["CORNERS", "evaluate", "evaluate_file", "no_decoder", "triangle"]

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=float)
"""A triangle in glTF's axes that faces +z."""


def evaluate_file(path: Path) -> tuple[SceneSurface, ReducedMaterials]:
    """Return the surface of a file without compressed data, and its materials."""
    glb = read_glb(path, GlbLimits())
    reduced = reduce_materials(glb.document, shown_primitives(glb.document, glb.tree))
    sets = reduced.texture_sets
    return scene_surface(glb.document, glb.tree, sets, 1000, no_decoder), reduced


def evaluate(builder: GltfBuilder, folder: Path) -> SceneSurface:
    """Return the surface of a builder's file."""
    return evaluate_file(builder.save(folder / "scene.glb"))[0]


def no_decoder(*_: object) -> Any:
    """Fail: a test without compressed data needs no decoder."""
    raise AssertionError("compressed data was decoded")


def triangle(builder: GltfBuilder, corners: np.ndarray = CORNERS, **attributes: Any) -> int:
    """Add a mesh of one triangle with the values of further attributes; return its index."""
    arrays = {name: builder.accessor(values) for name, values in attributes.items()}
    primitive = {"attributes": {"POSITION": builder.accessor(corners)} | arrays}
    return builder.add("meshes", {"primitives": [primitive]})
