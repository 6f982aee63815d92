"""Image sizes and triangle counts are read from headers, without decoding the data."""

import struct
from typing import Any

import numpy as np
import pytest

from glb.decoders.draco_header import num_draco_triangles
from glb.image_headers import image_size, is_cut_off
from tests.support.gltf_builder import encode_image

OPAQUE = np.random.default_rng(0).integers(0, 256, (37, 501, 3), dtype=np.uint8)
TRANSPARENT = np.random.default_rng(0).integers(0, 256, (37, 501, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    "pixels, kind, options",
    [
        (OPAQUE, "PNG", {}),
        (TRANSPARENT, "PNG", {}),
        (OPAQUE, "JPEG", {}),
        (OPAQUE, "JPEG", {"progressive": True, "comment": b"\xff\xd9 and more" * 9}),
        (OPAQUE, "WEBP", {}),
        (TRANSPARENT, "WEBP", {}),
        (OPAQUE, "WEBP", {"lossless": True}),
        (TRANSPARENT, "WEBP", {"lossless": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
    ],
    ids=lambda value: str(value) if not isinstance(value, np.ndarray) else str(value.shape[2]),
)
def test_the_size_of_an_image_is_read_from_its_header(
    pixels: np.ndarray, kind: str, options: dict[str, Any]
):
    data = encode_image(pixels, kind, **options)
    assert image_size(memoryview(data)) == (501, 37)
    assert not is_cut_off(memoryview(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_header_gives_no_size(kind: str):
    data = memoryview(encode_image(OPAQUE, kind))
    for length in range(20):
        assert image_size(data[:length]) is None
    assert is_cut_off(data[:500]) == (kind != "PNG")  # Blender itself detects a truncated PNG


def test_a_png_that_does_not_begin_with_its_header_has_no_size():
    data = encode_image(OPAQUE, "PNG")
    assert image_size(memoryview(data[:12] + b"tEXt" + data[16:])) is None


@pytest.mark.parametrize("data", [b"", b"BM", b"\xff\xd8\xff", b"\xff\xd8" + b"\xff" * 99, b"GIF"])
def test_an_unknown_format_has_no_size(data: bytes):
    assert image_size(memoryview(data)) is None


@pytest.mark.parametrize(
    "body, triangles",
    [
        (struct.pack("<BBH", 1, 1, 0) + b"\x00\x85\x01\x90\x4e", 10_000),  # edgebreaker
        (struct.pack("<BBH", 1, 0, 0) + b"\x90\x4e\x05", 10_000),  # sequential
        (struct.pack("<BBH", 1, 1, 0x8000) + b"\x00\x85\x01\x90\x4e", None),  # metadata first
        (struct.pack("<BBH", 0, 0, 0) + b"\x90\x4e\x05", None),  # points
        (struct.pack("<BBH", 1, 1, 0) + b"\x00\x85", None),  # cut off
    ],
)
def test_the_triangles_of_a_compressed_mesh_are_read_from_its_header(
    body: bytes, triangles: int | None
):
    assert num_draco_triangles(memoryview(b"DRACO\x02\x02" + body)) == triangles
