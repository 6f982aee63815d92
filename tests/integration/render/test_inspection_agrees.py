"""The inspection states what Blender draws: triangles, base-colour images and bounds."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from filters.inspect_glb import inspect_glb
from glb.glb_error import GlbError
from render.process import BlenderProcess, RenderFailure
from tests.support.evaluated_files import evaluate_file
from tests.support.gltf_builder import GltfBuilder

NOISE = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
HIDDEN = {"KHR_node_visibility": {"visible": False}}


def scene() -> GltfBuilder:
    """Return a scene with a textured square, of 2 triangles, beside which tests put other parts."""
    builder = GltfBuilder()
    texture = builder.texture(NOISE[..., :3])
    builder.node(mesh=builder.quad(builder.material(texture=texture)))
    return builder


def textured(builder: GltfBuilder, **material: Any) -> int:
    """Add a square at z = 1 with a texture of its own; return its mesh."""
    index = builder.material(texture=builder.texture(NOISE), **material)
    return builder.quad(index, z=1.0)


def second_set_only(builder: GltfBuilder) -> None:
    """Let the only texture coordinates be a second set, which breaks the specification."""
    mesh = textured(builder)
    attributes = builder.document["meshes"][mesh]["primitives"][0]["attributes"]
    attributes["TEXCOORD_1"] = attributes.pop("TEXCOORD_0")
    material = builder.document["materials"][-1]
    material["pbrMetallicRoughness"]["baseColorTexture"]["texCoord"] = 1
    builder.node(mesh=mesh)


def sheared(builder: GltfBuilder) -> None:
    matrix = np.array([[1, 0.5, 0, 3], [0, 2, 0.25, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    builder.node(mesh=textured(builder), matrix=matrix.T.ravel().tolist())


def instances(builder: GltfBuilder) -> None:
    attributes = {
        "TRANSLATION": builder.accessor([[3, 0, 0], [-3, 0, 0], [0, 0, 9]]),
        "SCALE": builder.accessor([[1, 1, 1], [2, -1, 1], [0, 0, 1]]),
    }
    extension = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    builder.node(mesh=textured(builder), extensions=extension)


def masked(builder: GltfBuilder) -> None:
    mesh = textured(builder, alphaMode="MASK", alphaCutoff=1.5)
    builder.node(mesh=mesh, translation=[9, 0, 0])


def points(builder: GltfBuilder) -> None:
    mesh = textured(builder)
    builder.document["meshes"][mesh]["primitives"][0]["mode"] = 0
    builder.node(mesh=mesh, translation=[9, 0, 0])


SCENES: dict[str, tuple[int, Callable[[GltfBuilder], object]]] = {
    "one square": (2, lambda builder: None),
    "another square": (4, lambda b: b.node(mesh=textured(b))),
    "no rotation": (4, lambda b: b.node(mesh=textured(b), rotation=[0, 0, 0, 0])),
    "a second set of coordinates only": (4, second_set_only),
    "shear": (4, sheared),
    "instances, one of them a point": (6, instances),
    "a node of no extent": (2, lambda b: b.node(mesh=textured(b), scale=[0, 0, 0])),
    "a node that is a line": (2, lambda b: b.node(mesh=textured(b), scale=[5, 0, 0])),
    "a flat node": (4, lambda b: b.node(mesh=textured(b), scale=[1, 1, 0], translation=[0, 0, 2])),
    "a hidden node": (2, lambda b: b.node(mesh=textured(b), extensions=HIDDEN)),
    "a node outside the scene": (2, lambda b: b.node(mesh=textured(b), root=False)),
    "a cutoff above 1": (
        2,
        lambda b: b.node(
            mesh=textured(b, alphaMode="MASK", alphaCutoff=1.5), translation=[9, 0, 0]
        ),
    ),
    "points": (
        2,
        lambda b: b.node(
            mesh=b.document["meshes"][textured(b)]["primitives"][0].update(mode=0) or 1
        ),
    ),
}
"""Scenes, and the triangles that a picture shows."""


def drawn_bounds(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of the triangles with an area, evaluated without Blender."""
    scene, reduced = evaluate_file(path)
    surface = scene.surface
    kept = [item.get("alphaCutoff", 0) <= 1 for item in reduced.by_index.values()]
    edges = surface.triangles - surface.triangles[:, :1]
    solid = np.linalg.norm(np.cross(edges[:, 1], edges[:, 2]), axis=1) > 1e-9
    points = surface.triangles[solid & np.array(kept)[surface.materials]]
    return points.min(axis=(0, 1)), points.max(axis=(0, 1))


@pytest.mark.parametrize("name", SCENES)
def test_the_inspection_states_what_is_drawn(blender: BlenderProcess, tmp_path: Path, name: str):
    num_triangles, add = SCENES[name]
    builder = scene()
    add(builder)
    path = builder.save(tmp_path / "scene.glb", used=["EXT_mesh_gpu_instancing"])
    inspection, report = inspect_glb(path), blender.open(path, "cube")
    assert inspection.num_triangles == report.num_triangles == num_triangles
    images = [item.image for item in inspection.base_colour_maps]
    assert images == report.base_colour_images
    assert report.num_materials == len(images)
    low, high = drawn_bounds(path)
    np.testing.assert_allclose(report.centre, (low + high) / 2, atol=1e-9)
    assert report.scale == pytest.approx(2 / (high - low).max())


def test_the_inspection_of_real_models_states_what_is_drawn(blender: BlenderProcess, mirror: Path):
    """Triangles without area are counted in the file only, and duplicates are drawn once."""
    compared = 0
    for path in sorted(mirror.glob("glbs/*/*.glb"), key=lambda path: path.stat().st_size)[:40]:
        with contextlib.suppress(GlbError, RenderFailure):
            inspection, report = inspect_glb(path), blender.open(path, "cube")
            left_out = (
                report.special_triangles["invisible"] + report.special_triangles["coincident"]
            )
            assert inspection.num_triangles == report.num_triangles + left_out
            images = {item.image for item in inspection.base_colour_maps}
            assert images >= set(report.base_colour_images)
            compared += 1
    assert compared > 20
