"""KTX 2 images are decoded, or rejected before anything large is decoded."""

import io
import struct
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from filters.inspect_glb import inspect_glb
from glb.decoders import ktx2
from glb.decoders.images import blender_image
from glb.decoders.ktx2 import decode_ktx2
from glb.glb_error import GlbError
from glb.image_headers import image_size
from glb.limits import GlbLimits
from glb.parse import read_glb
from tests.support.ktx2_images import BLOCKS, ETC1S, UASTC, header_of_ktx2, plain_ktx2
from tests.support.small_glbs import pack_glb, picture, textured_square

NONE, BASIS_LZ, ZSTD, ZLIB = range(4)
RGBA = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
BASIS = "KHR_texture_basisu"
BC7 = 145


def decode(data: bytes, limits: GlbLimits | None = None) -> np.ndarray:
    return decode_ktx2(memoryview(data), limits or GlbLimits())


def error_of(data: bytes, limits: GlbLimits | None = None) -> GlbError:
    with pytest.raises(GlbError) as caught:
        decode(data, limits)
    return caught.value


@pytest.mark.parametrize("scheme", [NONE, ZSTD, ZLIB])
@pytest.mark.parametrize(
    ("formats", "channels"),
    [
        ((9, 15), [0]),
        ((16, 22), [0, 1]),
        ((23, 29), [0, 1, 2]),
        ((30, 36), [2, 1, 0]),
        ((37, 43), [0, 1, 2, 3]),
        ((44, 50), [2, 1, 0, 3]),
    ],
)
def test_plain_pixels_are_the_stored_ones(
    formats: tuple[int, int], channels: list[int], scheme: int
) -> None:
    expected = np.zeros_like(RGBA)
    expected[:, :, 3] = 255
    expected[:, :, channels] = RGBA[:, :, channels]
    for vk_format in formats:
        data = plain_ktx2(RGBA[:, :, channels], vk_format, scheme)
        np.testing.assert_array_equal(decode(data), expected)
        assert image_size(memoryview(data)) == (7, 5)


@pytest.mark.parametrize("data", [ETC1S, UASTC], ids=["ETC1S", "UASTC"])
def test_basis_universal_is_decoded(data: bytes) -> None:
    assert abs(decode(data).astype(int) - BLOCKS).max() <= 2


def test_an_image_for_blender_is_a_png_of_the_same_pixels() -> None:
    png = blender_image(memoryview(plain_ktx2(RGBA, 43, ZSTD)), GlbLimits())
    assert png is not None
    with Image.open(io.BytesIO(png)) as opened:
        assert opened.format == "PNG"
        np.testing.assert_array_equal(np.asarray(opened), RGBA)
    for kind in ("PNG", "JPEG", "WEBP"):
        assert blender_image(memoryview(picture(kind)), GlbLimits()) is None


@pytest.mark.parametrize(
    ("vk_format", "scheme", "named"),
    [
        (BC7, NONE, "VkFormat 145 (BC)"),
        (152, NONE, "VkFormat 152 (ETC2 or EAC)"),
        (171, NONE, "VkFormat 171 (ASTC)"),
        (97, NONE, "VkFormat 97 (unknown)"),
        (43, BASIS_LZ, "supercompression 1"),
        (43, 77, "supercompression 77"),
    ],
)
def test_other_formats_are_unsupported_and_named(vk_format: int, scheme: int, named: str) -> None:
    error = error_of(header_of_ktx2(vk_format, (4, 4), scheme) + bytes(64))
    assert (error.kind, named in error.message) == ("unsupported_extension", True)


def test_without_its_decoder_basis_universal_names_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ktx2.importlib.util, "find_spec", lambda name: None)
    error = error_of(UASTC)
    assert error.kind == "unsupported_extension"
    assert "pip install opengl-basisu" in error.message


@pytest.mark.parametrize(
    "shape",
    [(1, 0, 1), (0, 2, 1), (0, 0, 6), (0, 0, 0)],
    ids=["depth", "layers", "cube", "no face"],
)
def test_only_a_single_picture_is_read(shape: tuple[int, int, int]) -> None:
    data = header_of_ktx2(43, (1, 1), level=(104, 4, 4), depth_layers_faces=shape) + bytes(4)
    assert error_of(data).kind == "malformed"


@pytest.mark.parametrize("vk_format", [0, 23, 43, BC7])
@pytest.mark.parametrize("size", [(65_536, 65_536), (2**32 - 1, 1), (2**31, 2**31)], ids=str)
def test_a_size_beyond_the_limit_is_refused_first(vk_format: int, size: tuple[int, int]) -> None:
    assert error_of(header_of_ktx2(vk_format, size, ZSTD)).kind == "too_large"


@pytest.mark.parametrize("scheme", [ZSTD, ZLIB])
@pytest.mark.parametrize(("vk_format", "stated"), [(43, 64), (43, 10**9), (0, 10**9)])
def test_a_level_that_unpacks_to_more_than_the_pixels_is_refused_quickly(
    scheme: int, vk_format: int, stated: int
) -> None:
    if scheme == ZSTD:
        packed = pa.compress(bytes(1 << 20), codec="zstd", asbytes=True) * 1000
    else:
        packed = zlib.compress(bytes(1 << 25), 1)
    data = header_of_ktx2(vk_format, (4, 4), scheme, (104, len(packed), stated)) + packed
    tracemalloc.start()
    started = time.process_time()
    try:
        assert error_of(data).kind == "malformed"
        assert time.process_time() - started < 0.5
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("scheme", [NONE, ZSTD, ZLIB])
def test_fewer_pixels_than_the_header_states_are_malformed(scheme: int) -> None:
    data = bytearray(plain_ktx2(RGBA, 43, scheme))
    struct.pack_into("<I", data, 24, 6)
    assert error_of(bytes(data)).kind == "malformed"


@pytest.mark.parametrize(
    "data",
    [plain_ktx2(RGBA, 43), plain_ktx2(RGBA, 43, ZSTD), plain_ktx2(RGBA, 43, ZLIB), ETC1S, UASTC],
    ids=["plain", "Zstandard", "zlib", "ETC1S", "UASTC"],
)
def test_a_damaged_image_is_decoded_or_rejected(data: bytes) -> None:
    rng = np.random.default_rng(1)
    limits = GlbLimits(max_image_pixels=1 << 16)
    outcomes = set()
    for _ in range(200):
        damaged = bytearray(data)
        for at in rng.integers(12, len(data), rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        if rng.random() < 0.3:
            del damaged[rng.integers(0, len(data)) :]
        try:
            height, width, _ = decode(bytes(damaged), limits).shape
            outcomes.add(image_size(memoryview(damaged)) == (width, height))
        except GlbError as error:
            outcomes.add(str(error.kind))
    assert False not in outcomes
    assert {True, "malformed"} <= outcomes


# Whole files


def file_of(texture: dict[str, Any], *images: bytes, **replaced: Any) -> bytes:
    """Return the square with this texture and these images."""
    document, binary = textured_square(images[0])
    for image in images[1:]:
        view = {"buffer": 0, "byteOffset": len(binary), "byteLength": len(image)}
        document["bufferViews"].append(view)
        document["images"].append({"bufferView": len(document["bufferViews"]) - 1})
        binary += image + bytes(-len(image) % 4)
    document["buffers"] = [{"byteLength": len(binary)}]
    document["textures"] = [texture]
    return pack_glb(document | replaced, binary)


def maps(data: bytes) -> list[tuple[int | None, str, str]]:
    return [(item.image, item.source, item.state) for item in inspect_glb(data).base_colour_maps]


@pytest.mark.parametrize(
    "image",
    [ETC1S, UASTC, plain_ktx2(RGBA, 43, ZSTD), plain_ktx2(RGBA[:, :, :3], 29)],
    ids=["ETC1S", "UASTC", "Zstandard", "plain"],
)
def test_a_ktx2_map_is_shown_whatever_names_it(image: bytes) -> None:
    named = {"extensions": {BASIS: {"source": 0}}}
    required = {"extensionsUsed": [BASIS], "extensionsRequired": [BASIS]}
    assert maps(file_of(named, image, **required)) == [(0, BASIS, "detailed")]
    assert maps(file_of({"source": 0}, image)) == [(0, "core", "detailed")]
    inspection = inspect_glb(file_of({"source": 0}, image))
    assert inspection.largest_image_pixels == np.prod(image_size(memoryview(image)))


def test_a_ktx2_map_of_one_colour_is_flat_and_a_broken_one_unreadable() -> None:
    flat = np.full((4, 4, 4), 90, np.uint8)
    flat[..., 3] = range(4)
    assert maps(file_of({"source": 0}, plain_ktx2(flat, 43))) == [(0, "core", "flat")]
    cut = plain_ktx2(RGBA, 43)[:-1]
    assert maps(file_of({"source": 0}, cut)) == [(0, "core", "unreadable")]


def test_a_shown_ktx2_map_that_cannot_be_decoded_is_unsupported() -> None:
    data = file_of({"source": 0}, header_of_ktx2(BC7, (4, 4)) + bytes(16))
    with pytest.raises(GlbError, match="VkFormat 145") as caught:
        read_glb(data, GlbLimits())
    assert caught.value.kind == "unsupported_extension"


@pytest.mark.parametrize(
    ("extensions", "images", "expected"),
    [
        ({BASIS: {"source": 1}}, [picture(), UASTC], (0, "core", "detailed")),
        ({BASIS: {"source": 1}}, [b"DDS " * 9, UASTC], (1, BASIS, "detailed")),
        (
            {BASIS: {"source": 2}, "EXT_texture_webp": {"source": 1}},
            [b"DDS " * 9, picture("WEBP"), UASTC],
            (1, "EXT_texture_webp", "detailed"),
        ),
        ({BASIS: {"source": 1}}, [b"DDS " * 9, b"DDS "], (0, "core", "unreadable")),
        ({BASIS: {"source": "1"}}, [picture(), UASTC], (0, "core", "detailed")),
    ],
    ids=["core", "core unknown", "WebP first", "both unknown", "extension not needed"],
)
def test_the_first_image_of_a_known_format_is_shown(
    extensions: dict[str, Any], images: list[bytes], expected: tuple[int, str, str]
) -> None:
    assert maps(file_of({"source": 0, "extensions": extensions}, *images)) == [expected]


@pytest.mark.parametrize("data", [ETC1S, UASTC], ids=["ETC1S", "UASTC"])
def test_the_inspection_decodes_no_basis_universal(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """Its decoder is native code, which runs in the confined Blender child only."""

    def decode_basis(*_: object) -> None:
        raise AssertionError("decoded outside the Blender child")

    monkeypatch.setattr(ktx2, "_decode_basis", decode_basis)
    (item,) = inspect_glb(file_of({"source": 0}, data)).base_colour_maps
    assert ((item.width, item.height), item.state) == (image_size(memoryview(data)), "detailed")
    (item,) = inspect_glb(file_of({"source": 0}, data[: len(data) // 2])).base_colour_maps
    assert item.state == "unreadable"
