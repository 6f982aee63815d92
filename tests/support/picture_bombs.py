"""Pictures of few bytes that cost much time or memory to decode, or that no decoder should see."""

import io
import struct
import zlib

import numpy as np
import pyarrow as pa
from PIL import Image

from tests.support.gltf_builder import png_chunk
from tests.support.ktx2_images import header_of_ktx2

__all__ = [
    "LARGE_PICTURES",
    "encode",
    "jpeg_of_many_scans",
    "large_jpeg",
    "large_ktx2",
    "large_png",
    "large_webp",
]

_EMPTY_SCAN = bytes.fromhex("ffda0008010100000000")
"""A scan of the first component that has no data."""


def encode(image: Image.Image, kind: str, **options) -> bytes:
    """Return an encoded image."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def jpeg_of_many_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG with empty scans, each of which visits every block."""
    data = encode(Image.new("L", (16, 16), 90), "JPEG", progressive=True)
    return _with_size(data, b"\xff\xc2", side).removesuffix(b"\xff\xd9") + _EMPTY_SCAN * scans


def large_jpeg(side: int, mode: str = "RGB", arithmetic: bool = False) -> bytes:
    """Return a JPEG whose header states its size; most of its data is missing."""
    data = encode(Image.new(mode, (16, 16), 90), "JPEG")
    data = _with_size(data, b"\xff\xc0", side)
    return data.replace(b"\xff\xc0", b"\xff\xc9", 1) if arithmetic else data


def _with_size(data: bytes, frame: bytes, side: int) -> bytes:
    start = data.index(frame) + 5
    return data[:start] + struct.pack(">HH", side, side) + data[start + 4 :]


def large_png(side: int, interlaced: bool = False, bits: int = 8, extra: bytes = b"") -> bytes:
    """Return a black RGBA PNG; `extra` chunks precede its pixels."""
    header = struct.pack(">IIBBBBB", side, side, bits, 6, 0, 0, interlaced)
    packer, row = zlib.compressobj(1), bytes(1 + side * bits // 2)
    # The passes of an interlaced picture have at most twice as many rows, which are shorter.
    pixels = b"".join(packer.compress(row) for _ in range(side * (2 if interlaced else 1)))
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", pixels + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def large_webp(side: int) -> bytes:
    """Return a lossless WebP of one colour."""
    return encode(Image.new("RGB", (side, side), 90), "WEBP", lossless=True, quality=0, method=0)


def large_ktx2(side: int, scheme: int) -> bytes:
    """Return a black RGBA KTX 2; scheme 2 is Zstandard, 3 zlib."""
    plain = np.zeros(side * side * 4, np.uint8)
    is_zstd = scheme == 2
    packed = pa.compress(plain, codec="zstd", asbytes=True) if is_zstd else zlib.compress(plain, 1)
    level = 104, len(packed), len(plain)
    return header_of_ktx2(37, (side, side), scheme, level) + packed


LARGE_PICTURES = {
    "PNG": large_png,
    "PNG, 16 bits": lambda side: large_png(side, bits=16),
    "PNG, interlaced": lambda side: large_png(side, interlaced=True),
    "JPEG": large_jpeg,
    "JPEG, CMYK": lambda side: large_jpeg(side, "CMYK"),
    "JPEG, arithmetic": lambda side: large_jpeg(side, arithmetic=True),
    "JPEG, progressive": lambda side: jpeg_of_many_scans(side, 1),
    "WebP": large_webp,
    "KTX 2, zstd": lambda side: large_ktx2(side, 2),
    "KTX 2, zlib": lambda side: large_ktx2(side, 3),
}
"""By name, functions from a side in pixels to a picture of few bytes."""
