"""Pictures of users: any file is read, or refused with one line, within limits on its work."""

import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from core.confined.confined_process import ConfinedProcess
from core.errors import BadInput
from tests.support.gltf_builder import png_chunk
from tests.support.picture_bombs import encode, jpeg_of_many_scans, large_jpeg, large_png
from train.inference.input_pictures import decode_file, read_picture, read_pictures

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
GREY = Image.fromarray(np.linspace(0, 1, 2400, dtype=np.float32).reshape(40, 60))
PNG, JPEG, TIFF = (encode(RGB, kind) for kind in ("PNG", "JPEG", "TIFF"))


def tiff_without_end() -> bytes:
    """Return a TIFF whose list of pages leads back to its first page."""
    data = bytearray(TIFF)
    start = struct.unpack_from("<I", data, 4)[0]
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    return bytes(data)


GOOD: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: PNG,
    "PNG, interlaced": lambda: large_png(60, interlaced=True),
    "JPEG": lambda: JPEG,
    "JPEG, progressive": lambda: encode(RGB, "JPEG", progressive=True),
    "JPEG, CMYK": lambda: encode(RGB.convert("CMYK"), "JPEG"),
    "WebP": lambda: encode(RGB, "WEBP"),
    "WebP, animated": lambda: encode(RGB, "WEBP", save_all=True, append_images=[RGB] * 3),
    "TIFF": lambda: TIFF,
    "TIFF, compressed": lambda: encode(RGB, "TIFF", compression="tiff_deflate"),
    "TIFF, many pages": lambda: encode(RGB, "TIFF", save_all=True, append_images=[RGB] * 9),
    "TIFF, pages without end": tiff_without_end,
    "TIFF, floating point": lambda: encode(GREY, "TIFF"),
    "TIFF, 16 bits": lambda: encode(Image.new("I;16", (60, 40), 9), "TIFF"),
    "PNG, 16 bits": lambda: encode(Image.new("I;16", (60, 40), 9), "PNG"),
}


def test_the_formats_that_are_read(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in GOOD]
    for path in paths:
        path.write_bytes(GOOD[path.name]())
    for path, picture in zip(paths, read_pictures(paths), strict=True):
        assert (picture.mode, picture.width) == ("RGBA", 60), path
    assert np.array_equal(np.asarray(read_picture(paths[0]).convert("RGB")), np.asarray(RGB))


def with_chunk(chunk: bytes) -> bytes:
    return PNG[:33] + chunk + PNG[33:]


def with_size(image: bytes, side: int) -> bytes:
    """Return a PNG whose header states another size."""
    header = struct.pack(">II", side, side) + image[24:29]
    return image[:8] + png_chunk(b"IHDR", header) + image[33:]


def huge_tiff() -> bytes:
    """Return a TIFF of 20,000 x 20,000 pixels in one strip of few bytes."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    image = encode(Image.new("1", (8, 8)), "TIFF", compression="tiff_deflate", tiffinfo=tags)
    data = bytearray(image)
    start = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, start)[0]):
        offset = start + 2 + 12 * entry
        if struct.unpack_from("<H", data, offset)[0] in (256, 257, 278):
            struct.pack_into("<HII", data, offset + 2, 4, 1, 20_000)
    return bytes(data)


ZEROS = zlib.compress(bytes(8 << 20), 1)
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "is not a picture in the format PNG, JPEG, WebP or TIFF"),
    "text": (lambda: b"no picture", "is not a picture in the format"),
    "BMP": (lambda: encode(RGB, "BMP"), "is not a picture in the format"),
    "GIF": (lambda: encode(RGB, "GIF"), "is not a picture in the format"),
    "EPS": (lambda: encode(RGB, "EPS"), "is not a picture in the format"),
    "PDF": (lambda: encode(RGB, "PDF"), "is not a picture in the format"),
    "PNG, many pixels": (lambda: with_size(PNG, 13_000), "has 13000 x 13000 pixels; the limit is"),
    "JPEG, many pixels": (lambda: large_jpeg(13_000), "has 13000 x 13000 pixels; the limit is"),
    "TIFF, many pixels": (huge_tiff, "has 20000 x 20000 pixels; the limit is 67108864: scale"),
    "JPEG, many scans": (lambda: jpeg_of_many_scans(8192, 30_000), "decoding took more than 0.5 s"),
    "PNG, long profile": (lambda: with_chunk(png_chunk(b"iCCP", b"a\0\0" + ZEROS)), "too large"),
    "PNG, long text": (lambda: with_chunk(png_chunk(b"zTXt", b"a\0\0" + ZEROS)), "too large"),
    "PNG, truncated": (lambda: PNG[:200], "cannot be read as a picture: image file is truncated"),
    "PNG, size only": (lambda: PNG[:30], "is not a picture in the format"),
    "JPEG, truncated": (lambda: JPEG[:700], "cannot be read as a picture: image file is trunc"),
    "TIFF, truncated": (lambda: TIFF[:200], "cannot be read as a picture: "),
    "WebP, truncated": (lambda: encode(RGB, "WEBP")[:60], "cannot be read as a picture: "),
}


@pytest.fixture(scope="module")
def process() -> Iterator[ConfinedProcess]:
    with ConfinedProcess("decoding") as process:
        yield process


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_is_refused_with_one_line(
    process: ConfinedProcess, tmp_path: Path, name: str
) -> None:
    build, message = REFUSED[name]
    path = tmp_path / "picture.png"
    path.write_bytes(build())
    started = time.monotonic()
    with pytest.raises(BadInput) as caught:
        decode_file(path, process, seconds=0.5 if "scans" in name else 60)
    assert time.monotonic() - started < 30
    assert str(caught.value).startswith(f"{path}: ")
    assert message.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in {
        "": "a folder",
        "pipe": "named pipe",
        "gone": "no such picture",
    }.items():
        with pytest.raises(BadInput, match=message):
            read_picture(tmp_path / name)
