"""Base colours from the file alone equal those that the renderer shows of unlit materials."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.cameras import Camera, intrinsics_from_fov, look_at, project
from dataset.views import ViewSet
from render.check import check_render
from render.frames import srgb_from_linear
from render.process import BlenderProcess, RenderFailure, RenderReport
from render.render_config import RenderConfig
from tests.support.gltf_builder import GltfBuilder

SIZE = 96
CONFIG = RenderConfig(resolution=SIZE, samples=4, min_samples=4)
CAMERAS = [
    Camera(camera_to_world=look_at(np.array(eye)), intrinsics=intrinsics_from_fov(50))
    for eye in ((0.0, -3.0, 0.0), (0.3, -2.8, 0.4))
]
UNLIT: dict[str, Any] = {"extensions": {"KHR_materials_unlit": {}}}
TRANSFORM = {"offset": [0.3, -0.4], "rotation": 0.4, "scale": [1.7, 2.3]}
EXTENSIONS = (
    "KHR_materials_unlit",
    "KHR_materials_pbrSpecularGlossiness",
    "KHR_materials_transmission",
    "KHR_texture_transform",
)


def image() -> np.ndarray:
    """Return 5 rows of 8 texels of different colours, none of them dark."""
    return np.random.default_rng(0).integers(90, 255, (5, 8, 3)).astype(np.uint8)


def deep_png(pixels: np.ndarray) -> bytes:
    """Encode an image with 16 bits per channel, which Pillow cannot write in colour."""
    rows = pixels.astype(">u2") * 257
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")):
        png += struct.pack(">I", len(content)) + kind + content
        png += struct.pack(">I", zlib.crc32(kind + content))
    return png


def textured(
    builder: GltfBuilder, pixels: np.ndarray | bytes, wrap: int = 10497, **slot: Any
) -> int:
    """Add an unlit material with a texture whose texels are not interpolated."""
    texture = builder.texture(pixels)
    sampler = {"magFilter": 9728, "minFilter": 9728, "wrapS": wrap, "wrapT": wrap}
    builder.document["textures"][texture]["sampler"] = builder.add("samplers", sampler)
    number = builder.material((0.9, 0.7, 0.8, 1), **UNLIT)
    pbr = builder.document["materials"][number]["pbrMetallicRoughness"]
    pbr["baseColorTexture"] = {"index": texture} | slot
    return number


def transformed(wrap: int) -> Callable[[GltfBuilder], int]:
    slot = {"extensions": {"KHR_texture_transform": TRANSFORM}}
    return lambda builder: textured(builder, image(), wrap, **slot)


MATERIALS: dict[str, Callable[[GltfBuilder], int]] = {
    "factor": lambda builder: builder.material((0.2, 0.5, 0.7, 1), **UNLIT),
    "texture": lambda builder: textured(builder, image()),
    "repeat": transformed(10497),
    "clamp": transformed(33071),
    "mirror": transformed(33648),
    "16 bits": lambda builder: textured(builder, deep_png(image())),
}


def square(material: Callable[[GltfBuilder], int], coloured: bool = False) -> GltfBuilder:
    builder = GltfBuilder()
    corners = [(1, 0.2, 0.3, 1), (0.3, 1, 0.3, 1), (0.3, 0.2, 1, 1), (1, 1, 1, 1)]
    attributes = {"COLOR_0": builder.accessor(corners)} if coloured else {}
    builder.node(mesh=builder.quad(material(builder), attributes=attributes))
    return builder


def render(
    blender: BlenderProcess, builder: GltfBuilder, folder: Path, config: RenderConfig = CONFIG
) -> tuple[ViewSet, RenderReport]:
    blender.open(builder.save(folder / "object.glb", EXTENSIONS), "cube")
    return blender.render(CAMERAS, config)


@pytest.mark.parametrize("coloured", [False, True], ids=["", "COLOR_0"])
@pytest.mark.parametrize("name", MATERIALS)
def test_the_picture_of_an_unlit_material_shows_the_base_colours(
    blender: BlenderProcess, tmp_path: Path, name: str, coloured: bool
):
    config = CONFIG.model_copy(update={"denoise": False})
    views, report = render(blender, square(MATERIALS[name], coloured), tmp_path, config)
    base = report.base_colours
    assert base.points.shape == (20_000, 3)
    assert not base.lit.any()
    expected = np.rint(srgb_from_linear(base.colours) * 255)
    assert expected.max() > 150
    for view, camera in enumerate(CAMERAS):
        column, row = (project(camera, base.points)[0] * SIZE).astype(int).T
        difference = np.abs(views.rgba[view, row, column, :3] - expected)[
            views.rgba[view, row, column, 3] == 255
        ]
        # A texel is 9 pixels wide or 4 after the transform; pixels on an edge are a mixture.
        assert np.percentile(difference, 50) <= 2
    assert check_render(views, report, CONFIG) == 0


GLOSSY = {"diffuseFactor": [0.2, 0.4, 0.6, 1], "specularFactor": [1, 1, 1]}


@pytest.mark.parametrize(
    ("material", "colour"),
    [
        ({}, (0.5, 0.6, 0.7)),
        ({"extensions": {"KHR_materials_pbrSpecularGlossiness": GLOSSY}}, (0.2, 0.4, 0.6)),
        ({"extensions": {"KHR_materials_transmission": {"transmissionFactor": 0.5}}}, (0, 0, 0)),
        ({"alphaMode": "BLEND"}, (0, 0, 0)),
        ({"alphaMode": "MASK", "alphaCutoff": 0.3}, (0, 0, 0)),
    ],
    ids=["opaque", "glossy", "transmission", "blend", "mask"],
)
def test_what_lets_light_pass_has_no_base_colour(
    blender: BlenderProcess, tmp_path: Path, material: dict[str, Any], colour: tuple[float, ...]
):
    builder = square(lambda builder: builder.material((0.5, 0.6, 0.7, 0.8), **material))
    _, report = render(blender, builder, tmp_path)
    assert report.base_colours.lit.all()
    np.testing.assert_allclose(report.base_colours.colours, np.tile(colour, (20_000, 1)), rtol=1e-5)


@pytest.mark.parametrize("more", [{}, UNLIT], ids=["lit", "unlit"])
def test_a_black_object_passes(blender: BlenderProcess, tmp_path: Path, more: dict[str, Any]):
    builder = square(lambda builder: builder.material((0, 0, 0, 1), **more))
    views, report = render(blender, builder, tmp_path)
    assert views.rgba[views.depth > 0][:, :3].max() < 60
    assert check_render(views, report, CONFIG) == 0


def test_an_object_that_is_rendered_without_light_is_refused(
    blender: BlenderProcess, tmp_path: Path
):
    darkness = {"light_strength": 0.0, "light_gradient": 0.0}
    config = CONFIG.model_copy(update=darkness)
    builder = square(lambda builder: builder.material((0.5, 0.5, 0.5, 1)))
    views, report = render(blender, builder, tmp_path, config)
    assert check_render(views, report, config) == 0
    with pytest.raises(RenderFailure, match=r"100.0% of the visible surface is black"):
        check_render(views, report, CONFIG)


def test_an_object_with_a_black_part_is_refused(blender: BlenderProcess, tmp_path: Path):
    builder = square(lambda builder: textured(builder, image()))
    views, report = render(blender, builder, tmp_path)
    rows = np.nonzero(views.depth[0])[0]
    views.rgba[:, rows.min() : rows.min() + (rows.max() - rows.min()) // 8, :, :3] = 0
    with pytest.raises(RenderFailure, match=r"^\d+\.\d% of the visible surface is black"):
        check_render(views, report, CONFIG)
