"""Images of unusual forms, rendered: what is drawn equals what the inspection states."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.cameras import Camera, intrinsics_from_fov, look_at
from dataset.views import ViewSet
from filters.inspect_glb import inspect_glb
from render.process import BlenderProcess, RenderFailure
from render.render_config import RenderConfig
from tests.support.gltf_builder import GltfBuilder, encode_image, png_chunk
from tests.support.ktx2_images import BLOCKS, UASTC, plain_ktx2

CONFIG = RenderConfig(resolution=48, samples=4, denoise=False, light_strength=1.0, light_gradient=0)
FRONT = Camera(camera_to_world=look_at(np.array([0, -3.0, 0])), intrinsics=intrinsics_from_fov(50))
CELLS = np.array([[(250, 20, 130), (30, 200, 60)], [(10, 60, 240), (220, 150, 0)]], dtype=np.uint8)
PIXELS = CELLS.repeat(16, axis=0).repeat(16, axis=1)
ORIENTATION = 0x0112
UNLIT = {"extensions": {"KHR_materials_unlit": {}}}


def cells(views: ViewSet) -> np.ndarray:
    """Return the colours in the middle of the quarters of the square: (2, 2, 3), top row first."""
    return views.rgba[0][18:31:12, 18:31:12, :3]


def still_and_later(**options: Any) -> bytes:
    later = [Image.fromarray(255 - PIXELS)]
    return encode_image(PIXELS, "WEBP", save_all=True, append_images=later, duration=9, **options)


def turned() -> bytes:
    """Return a JPEG whose EXIF data asks viewers to turn it."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return encode_image(PIXELS, "JPEG", quality=98, subsampling=0, exif=exif.tobytes())


def with_chunk(kind: bytes, data: bytes) -> bytes:
    image = encode_image(PIXELS)
    return image[:33] + png_chunk(kind, data) + image[33:]


IMAGES = {
    "animated WebP": still_and_later(lossless=True),
    "gamma that glTF ignores": with_chunk(b"gAMA", (100_000).to_bytes(4, "big")),
    "rotation that glTF ignores": turned(),
    "KTX 2": plain_ktx2(PIXELS, 29),
}
NO_IMAGES = {
    "BMP": encode_image(PIXELS, "BMP"),
    "GIF": encode_image(PIXELS, "GIF"),
    "TIFF": encode_image(PIXELS, "TIFF"),
    "empty": b"",
}


def textured(image: bytes, **material: Any) -> GltfBuilder:
    builder = GltfBuilder()
    texture = builder.texture(image)
    builder.node(mesh=builder.quad(builder.material(texture=texture, **(UNLIT | material))))
    return builder


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_shown_as_it_is_stored(blender: BlenderProcess, tmp_path: Path, name: str):
    path = textured(IMAGES[name]).save(tmp_path / "object.glb", ["KHR_materials_unlit"])
    assert [item.state for item in inspect_glb(path).base_colour_maps] == ["detailed"]
    blender.open(path, "cube")
    views, _ = blender.render([FRONT], CONFIG)
    np.testing.assert_allclose(cells(views), CELLS, atol=8)


@pytest.mark.parametrize("name", NO_IMAGES)
def test_other_formats_are_unreadable(blender: BlenderProcess, tmp_path: Path, name: str):
    """Blender reads some of them, but glTF allows none, and the inspection states no picture."""
    path = textured(NO_IMAGES[name]).save(tmp_path / "object.glb", ["KHR_materials_unlit"])
    assert [item.state for item in inspect_glb(path).base_colour_maps] == ["unreadable"]
    with pytest.raises(RenderFailure, match="baseColorTexture: image 0 is not a PNG"):
        blender.open(path, "cube")
    builder = textured(encode_image(PIXELS), extensions={})
    builder.document["materials"][0]["normalTexture"] = {"index": builder.texture(NO_IMAGES[name])}
    path = builder.save(tmp_path / "object.glb")
    assert [item.state for item in inspect_glb(path).base_colour_maps] == ["detailed"]
    (note,) = blender.open(path, "cube").notes
    assert note.startswith("material 0: normalTexture is ignored: image 1 is not a PNG")


def test_a_ktx2_may_be_colour_and_data(blender: BlenderProcess, tmp_path: Path):
    """It looks as a PNG of the same pixels does."""
    pictures = []
    for image in (UASTC, encode_image(BLOCKS[..., :3])):
        builder = textured(image, extensions={})
        pbr = builder.document["materials"][0]["pbrMetallicRoughness"]
        pbr["metallicRoughnessTexture"] = {"index": 0}
        pbr["metallicFactor"] = 1.0
        assert not blender.open(builder.save(tmp_path / "object.glb"), "cube").notes
        pictures.append(cells(blender.render([FRONT], CONFIG)[0]).astype(int))
    np.testing.assert_allclose(*pictures, atol=3)
