"""Images that are passed on in another form: animations, texts, broken parts, previews."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glb.decoders.png import essential_png
from glb.decoders.webp import first_frame, is_animated
from glb.glb_error import GlbError
from glb.image_headers import is_cut_off
from tests.support.gltf_builder import encode_image, png_chunk

NOISE = np.random.default_rng(0).integers(0, 256, (24, 40, 4), dtype=np.uint8)
PNG = encode_image(NOISE[..., :3])
HEADER_END = 33


def pixels(data: bytes, mode: str = "RGBA") -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert(mode))


def animated(channels: int, **options: Any) -> bytes:
    later = Image.fromarray(255 - NOISE[..., :channels])
    return encode_image(
        NOISE[..., :channels], "WEBP", save_all=True, append_images=[later], duration=9, **options
    )


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("options", [{"lossless": True, "exact": True}, {"quality": 90}])
def test_the_first_frame_of_an_animated_webp_is_a_webp(channels: int, options: dict[str, Any]):
    data = animated(channels, **options)
    assert is_animated(memoryview(data))
    still = first_frame(memoryview(data))
    assert not is_animated(memoryview(still))
    assert not is_cut_off(memoryview(still))
    seen = pixels(data)[..., 3] > 0  # colours without opacity may differ
    np.testing.assert_array_equal(pixels(still)[seen], pixels(data)[seen])
    np.testing.assert_array_equal(pixels(still)[..., 3], pixels(data)[..., 3])


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}]
)
def test_a_still_webp_is_not_animated(options: dict[str, Any]):
    assert not is_animated(memoryview(encode_image(NOISE, "WEBP", **options)))


def test_a_frame_must_fill_the_picture():
    data = bytearray(animated(3))
    data[data.index(b"ANMF") + 8] = 1  # the place of the frame from the left
    with pytest.raises(GlbError, match="does not fill"):
        first_frame(memoryview(data))


@pytest.mark.parametrize("length", range(16, 200, 7))
def test_a_truncated_animation_raises_nothing_else(length: int):
    data = memoryview(animated(4))[:length]
    if is_animated(data):
        try:
            first_frame(data)
        except GlbError as error:
            assert error.kind == "import_error"


@pytest.mark.parametrize(
    "inserted",
    [
        png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000))),
        png_chunk(b"iCCP", b"a\0\0no profile"),
        png_chunk(b"gAMA", struct.pack(">I", 100_000)),
        png_chunk(b"tEXt", b"a\0b")[:-4] + b"junk",
    ],
    ids=["long text", "broken profile", "gamma", "wrong checksum"],
)
def test_parts_without_pixels_are_removed(inserted: bytes):
    assert essential_png(memoryview(PNG[:HEADER_END] + inserted + PNG[HEADER_END:])) == PNG


def test_what_changes_pixels_is_kept():
    palette = Image.fromarray(NOISE[..., 0]).convert("P")
    out = io.BytesIO()
    palette.save(out, "PNG", transparency=bytes(range(256)))
    data = out.getvalue()
    assert b"tRNS" in data
    np.testing.assert_array_equal(pixels(essential_png(memoryview(data))), pixels(data))


@pytest.mark.parametrize(
    "data",
    [
        PNG[:HEADER_END] + png_chunk(b"CgBI", bytes(4)) + PNG[HEADER_END:],
        PNG[: HEADER_END - 4] + b"junk" + PNG[HEADER_END:],
        PNG[:-16] + b"junk" + PNG[-12:],
    ],
    ids=["unknown", "header", "pixels"],
)
def test_what_no_decoder_of_png_accepts_is_malformed(data: bytes):
    with pytest.raises(GlbError, match="PNG"):
        essential_png(memoryview(data))


def test_a_preview_does_not_hide_that_a_jpeg_is_truncated():
    large, preview = (encode_image(part, "JPEG") for part in (NOISE[..., :3], NOISE[:8, :8, :3]))
    segment = b"\xff\xe1" + struct.pack(">H", len(preview) + 2) + preview
    data = large[:2] + segment + large[2:]
    assert not is_cut_off(memoryview(data))
    for length in (len(segment) + 2, len(segment) + 100, len(data) - 50, len(data) - 2):
        assert is_cut_off(memoryview(data[:length])), length
