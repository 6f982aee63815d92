"""`inspect_glb` counts the contents of a scene and classifies its base-colour maps."""

import dataclasses
import json
import struct
import zlib
from pathlib import Path

import pytest

from filters.inspect_glb import GlbError, Inspection, InspectLimits, inspect_glb
from glb.limits import GlbLimits
from tests.support.gltf_builder import png_chunk
from tests.support.small_glbs import (
    changed_square,
    pack_glb,
    picture,
    square_with_extension,
    textured_square,
)

DOCUMENT, BINARY = textured_square()
PRIMITIVE = DOCUMENT["meshes"][0]["primitives"][0]


def inspect_error(data: bytes, limits: InspectLimits | None = None) -> GlbError:
    """Return the error that the inspection of the file raises."""
    with pytest.raises(GlbError) as caught:
        inspect_glb(data, limits)
    return caught.value


def test_a_textured_square_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "square.glb"
    path.write_bytes(pack_glb(DOCUMENT, BINARY))
    inspection = inspect_glb(path)
    assert inspection == inspect_glb(str(path)) == inspect_glb(path.read_bytes())
    assert (inspection.num_nodes, inspection.num_meshes, inspection.num_primitives) == (2, 1, 1)
    assert (inspection.num_triangles, inspection.num_images, inspection.num_animations) == (2, 1, 0)
    assert inspection.largest_image_pixels == 64
    (texture,) = inspection.base_colour_maps
    assert (texture.image, texture.source, texture.state) == (0, "core", "detailed")
    assert (texture.width, texture.height, texture.triangles) == (8, 8, 2)


def test_every_limit_of_the_parser_is_a_setting() -> None:
    assert InspectLimits().dump() == dataclasses.asdict(GlbLimits())
    assert InspectLimits(max_nodes=7).glb_limits() == GlbLimits(max_nodes=7)


def test_inspection_survives_json() -> None:
    inspection = inspect_glb(pack_glb(DOCUMENT, BINARY))
    assert Inspection.from_dict(json.loads(json.dumps(inspection.to_dict()))) == inspection


@pytest.mark.parametrize(
    ("mode", "triangles"), [(None, 2), (4, 2), (5, 4), (6, 4), (0, 0), (1, 0), (3, 0)]
)
def test_the_triangles_of_each_mode_are_counted(mode: int | None, triangles: int) -> None:
    primitive = {k: v for k, v in PRIMITIVE.items() if k != "mode"}
    primitive |= {} if mode is None else {"mode": mode}
    data = changed_square(meshes=[{"primitives": [primitive]}])
    if triangles:
        assert inspect_glb(data).num_triangles == triangles
    else:
        assert inspect_error(data).kind == "empty"


def test_only_the_default_scene_is_counted() -> None:
    nodes = [{"mesh": 0}, {"mesh": 1}, {"mesh": 1}]
    meshes = [{"primitives": [PRIMITIVE]}, {"primitives": [PRIMITIVE] * 2}]
    scenes = [{"nodes": [0]}, {"nodes": [1, 2]}]
    tree = {"nodes": nodes, "meshes": meshes, "scenes": scenes}
    assert inspect_glb(changed_square(scene=0, **tree)).num_triangles == 2
    second = inspect_glb(changed_square(scene=1, **tree))
    assert (second.num_triangles, second.num_meshes, second.num_primitives) == (8, 1, 2)
    unnamed = {key: value for key, value in (DOCUMENT | tree).items() if key != "scene"}
    assert inspect_glb(pack_glb(unnamed, BINARY)).num_triangles == 2
    del unnamed["scenes"]
    assert inspect_glb(pack_glb(unnamed, BINARY)).num_triangles == 10
    assert inspect_error(changed_square(scene=2, **tree)).kind == "malformed"


def test_gpu_instances_are_counted() -> None:
    def instanced(*counts: int) -> bytes:
        arrays = DOCUMENT["accessors"] + [
            {"componentType": 5126, "count": count, "type": kind}
            for count, kind in zip(counts, ("VEC3", "VEC4"), strict=False)
        ]
        names = ("TRANSLATION", "ROTATION")
        attributes = {name: 3 + i for i, name in enumerate(names[: len(counts)])}
        extension = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
        nodes = [{"mesh": 0, "extensions": extension}]
        return square_with_extension("EXT_mesh_gpu_instancing", nodes=nodes, accessors=arrays)

    assert inspect_glb(instanced(125)).num_triangles == 250
    assert inspect_glb(instanced(5, 5)).base_colour_maps[0].triangles == 10
    assert inspect_error(instanced(5, 6)).kind == "malformed"
    assert inspect_error(instanced()).kind == "empty"
    assert inspect_error(instanced(10**9)).kind == "too_large"


def test_what_draws_nothing_is_not_counted() -> None:
    """Neither a node without extent, nor a material without opacity, draws anything."""
    flat = {"mesh": 0, "scale": [0, 0, 1]}
    below = {"children": [3], "scale": [1, 0, 1]}
    nodes = [{"children": [1, 2, 4]}, flat, below, {"mesh": 0, "scale": [0, 1, 1]}, {"mesh": 0}]
    assert inspect_glb(changed_square(nodes=nodes)).num_triangles == 2
    for changed in (
        {"alphaMode": "BLEND", "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0]}},
        {"alphaMode": "MASK", "alphaCutoff": 1.5},
        {"alphaMode": "MASK", "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.4]}},
    ):
        assert inspect_error(changed_square(materials=[changed])).kind == "empty"
    opaque = {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0]}}
    assert inspect_glb(changed_square(materials=[opaque])).num_triangles == 2


# Base-colour maps


def states(**replaced) -> list[tuple[str, str]]:
    colour_maps = inspect_glb(changed_square(**replaced)).base_colour_maps
    return [(item.source, item.state) for item in colour_maps]


def test_only_visible_base_colour_maps_are_listed() -> None:
    assert states(materials=[{}]) == []
    assert states(materials=[{"normalTexture": {"index": 0}}]) == []
    bare = {key: value for key, value in PRIMITIVE.items() if key != "material"}
    assert states(meshes=[{"primitives": [bare]}]) == []
    # A textured mesh that no node of the scene draws does not count.
    meshes = [{"primitives": [bare]}, {"primitives": [PRIMITIVE]}]
    assert states(meshes=meshes) == []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_that_decodes_is_detailed(kind: str) -> None:
    data = pack_glb(*textured_square(picture(kind, (600, 300))))
    (texture,) = inspect_glb(data).base_colour_maps
    assert (texture.width, texture.height, texture.state) == (600, 300, "detailed")


@pytest.mark.parametrize(
    ("image", "state"),
    [
        (picture(flat=True), "flat"),
        (picture("JPEG", flat=True), "flat"),
        (picture(size=(1, 1)), "flat"),
        (picture()[:-30], "unreadable"),
        (picture()[:-20] + b"junk" + picture()[-16:], "unreadable"),
        (picture("JPEG", (64, 64))[:600], "unreadable"),
        (picture("BMP"), "unreadable"),
        (b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(80), "unreadable"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unreadable"),
    ],
    ids=["flat", "flat JPEG", "1x1", "cut PNG", "damaged PNG", "cut JPEG", "BMP", "KTX2", "EPS"],
)
def test_a_flat_or_unreadable_image_is_reported(image: bytes, state: str) -> None:
    (texture,) = inspect_glb(pack_glb(*textured_square(image))).base_colour_maps
    assert texture.state == state


@pytest.mark.parametrize(
    "part",
    [png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000))), bytes(4) + b"tEXtjunk"],
    ids=["a long text", "a wrong checksum"],
)
def test_parts_without_pixels_do_not_make_an_image_unreadable(part: bytes) -> None:
    data = picture()
    document, binary = textured_square(data[:33] + part + data[33:])
    (texture,) = inspect_glb(pack_glb(document, binary)).base_colour_maps
    assert texture.state == "detailed"


def png_with_a_small_text_first() -> bytes:
    """Return a PNG with eight bytes of text where the size usually is."""
    large = picture(size=(80, 80))
    return large[:8] + png_chunk(b"tEXt", struct.pack(">II", 1, 1)) + large[8:]


def png_with_two_headers() -> bytes:
    large = picture(size=(80, 80))
    return large[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)) + large[8:]


def jpeg_with_two_frames() -> bytes:
    large = picture("JPEG", (80, 80))
    position = large.index(b"\xff\xc0")
    frame = large[position : position + 2 + int.from_bytes(large[position + 2 : position + 4])]
    return large[:position] + frame.replace(b"\0P\0P", b"\0\1\0\1") + large[position:]


def jpeg_with_a_thumbnail() -> bytes:
    thumbnail = picture("JPEG", (8, 8))
    large = picture("JPEG", (80, 80))
    return large[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + large[2:]


@pytest.mark.parametrize(
    "image",
    [
        png_with_a_small_text_first(),
        png_with_two_headers(),
        jpeg_with_two_frames(),
        jpeg_with_a_thumbnail(),
        picture("WEBP", (80, 80)),
    ],
    ids=["text first", "two headers", "two frames", "thumbnail", "WebP"],
)
def test_no_header_hides_the_size_of_an_image(image: bytes) -> None:
    """Pillow would allocate memory for all pixels, even if it then fails to decode them."""
    data = pack_glb(*textured_square(image))
    error = inspect_error(data, InspectLimits(max_image_pixels=80 * 80 - 1))
    assert error.kind == "too_large"
    assert "80 x 80" in error.message
    inspect_glb(data, InspectLimits(max_image_pixels=80 * 80))


def test_a_texture_named_by_a_supported_extension_is_read() -> None:
    name = "EXT_texture_webp"
    alone = [{"extensions": {name: {"source": 0}}}]
    assert states(textures=alone, extensionsUsed=[name]) == [(name, "detailed")]
    fallback = [{"source": 0, "extensions": {name: {"source": 0}}}]
    assert states(textures=fallback, extensionsUsed=[name]) == [("core", "detailed")]
    wrong = [{"extensions": {name: {"source": "0"}}}]
    assert inspect_error(changed_square(textures=wrong)).kind == "malformed"


def test_a_texture_named_only_by_an_unsupported_extension_is_rejected() -> None:
    name = "MSFT_texture_dds"
    alone = [{"extensions": {name: {"source": 0}}}]
    error = inspect_error(changed_square(textures=alone, extensionsUsed=[name]))
    assert (error.kind, name in error.message) == ("unsupported_extension", True)
    assert states(**hidden(alone)) == []
    fallback = [{"source": 0, "extensions": {name: {"source": 0}}}]
    assert states(textures=fallback, extensionsUsed=[name]) == [("core", "detailed")]
    wrong = [{"extensions": {name: {"source": "0"}}}]
    assert inspect_error(changed_square(textures=wrong)).kind == "unsupported_extension"
    assert states(**hidden(wrong)) == []


def test_a_texture_without_an_image_is_malformed_unless_hidden() -> None:
    assert inspect_error(changed_square(textures=[{}])).kind == "malformed"
    assert states(**hidden([{}])) == []


def hidden(textures: list[dict]) -> dict[str, list]:
    """Return changes to the scene that hide its only textured node, so its image is not needed."""
    plain = {key: value for key, value in PRIMITIVE.items() if key != "material"}
    invisible = {"KHR_node_visibility": {"visible": False}}
    return {
        "textures": textures,
        "meshes": [{"primitives": [plain]}, {"primitives": [PRIMITIVE]}],
        "nodes": [{"mesh": 0, "children": [1]}, {"mesh": 1, "extensions": invisible}],
    }


def test_specular_glossiness_is_read_as_the_importer_reads_it() -> None:
    name = "KHR_materials_pbrSpecularGlossiness"
    core = DOCUMENT["materials"][0]
    gloss = {"extensions": {name: {"diffuseTexture": {"index": 0}}}}
    assert states(materials=[gloss]) == [("core", "detailed")]
    # The importer ignores the metallic-roughness texture beside it ...
    assert states(materials=[core | {"extensions": {name: {}}}]) == []
    # ... unless the material is unlit.
    unlit = core | {"extensions": {name: {}, "KHR_materials_unlit": {}}}
    assert states(materials=[unlit]) == [("core", "detailed")]
    broken = {"extensions": {name: {"diffuseTexture": 5}}}
    assert inspect_error(changed_square(materials=[broken])).kind == "malformed"


def test_a_map_without_its_texture_coordinates_is_reported() -> None:
    def material(**info) -> list[dict]:
        return [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0} | info}}]

    moved = {"KHR_texture_transform": {"texCoord": 1}}
    assert states(materials=material(texCoord=1)) == [("core", "no_uv")]
    assert states(materials=material(extensions=moved)) == [("core", "no_uv")]
    both = PRIMITIVE["attributes"] | {"TEXCOORD_1": 1}
    meshes = [{"primitives": [PRIMITIVE | {"attributes": both}]}]
    assert states(materials=material(extensions=moved), meshes=meshes) == [("core", "detailed")]
