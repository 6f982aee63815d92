"""Small KTX 2 images: plain ones, and two that the encoder of Basis Universal wrote.

The encoder is that of the Python package alktx2 0.1.7: `encode_raw_rgba_to_ktx2` of `BLOCKS`, with
quality 100, as ETC1S and as UASTC with Zstandard of level 9.
"""

import base64
import struct
import zlib

import numpy as np
import pyarrow as pa

__all__ = ["BLOCKS", "ETC1S", "UASTC", "header_of_ktx2", "plain_ktx2"]

_COLOURS = np.array(
    [
        [(255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255)],
        [(255, 255, 255, 255), (0, 0, 0, 255), (255, 255, 0, 0)],
    ],
    np.uint8,
)
BLOCKS = _COLOURS.repeat(4, axis=0).repeat(4, axis=1)
"""The pixels (8, 12, 4) of both images: six blocks of one colour each."""

ETC1S = base64.b64decode(
    "q0tUWCAyMLsNChoKAAAAAAEAAAAMAAAACAAAAAAAAAAAAAAAAQAAAAEAAAABAAAAaAAAADwAAACkAAAAJAAAAMgA"
    "AAAAAAAAlAAAAAAAAABcAQAAAAAAAAYAAAAAAAAAAAAAAAAAAAA8AAAAAAAAAAIAOACjAQIAAwMAAAgIAAAAAAAA"
    "AAA/AAAAAAAAAAAA/////0AAPw8AAAAAAAAAAP////8fAAAAS1RYd3JpdGVyAEJhc2lzIFVuaXZlcnNhbCAyLjEw"
    "AAAGAAMALAAAAA0AAAAzAAAAAAAAAAAAAAAAAAAABAAAAAQAAAACAAAAIMBEAAAAAAAA4kQEMBEAAAAAAIAsEAAm"
    "AAAAAAAAEAKACQAAAAAAAARwdDZUVVVVBQAAAKiqqqoCAMGEAAEAAAAQNKL/TwMNgAkAAgAAgCCIJ4mACAEDAABA"
    "sPEIIojyAWACQAAAAAAAIRAAFDzsAE0L"
)
UASTC = base64.b64decode(
    "q0tUWCAyMLsNChoKAAAAAAEAAAAMAAAACAAAAAAAAAAAAAAAAQAAAAEAAAACAAAAaAAAACwAAACUAAAAJAAAAAAA"
    "AAAAAAAAAAAAAAAAAAC4AAAAAAAAAEMAAAAAAAAAYAAAAAAAAAAsAAAAAAAAAAIAKACmAQIAAwMAABAAAAAAAAAA"
    "AAB/AwAAAAAAAAAA/////x8AAABLVFh3cml0ZXIAQmFzaXMgVW5pdmVyc2FsIDIuMTAAACi1L/0gYNUBAIQC9x8A"
    "4B96ABfgH+AfAg8A4P8fAuAB9////x987xcAAOAfAPf/HwAAfAYAQ2wjhK1BMYCYmdsUwAg="
)
_NONE, _ZSTD, _ZLIB = 0, 2, 3


def header_of_ktx2(
    vk_format: int,
    size: tuple[int, int],
    scheme: int = _NONE,
    level: tuple[int, int, int] = (104, 0, 0),
    depth_layers_faces: tuple[int, int, int] = (0, 0, 1),
) -> bytes:
    """Return a header with one level: its offset, its size and its uncompressed size in bytes."""
    fields = vk_format, 1, *size, *depth_layers_faces, 1, scheme
    ranges = 0, 0, 0, 0, 0, 0
    return b"\xabKTX 20\xbb\r\n\x1a\n" + struct.pack("<9I4I2Q3Q", *fields, *ranges, *level)


def plain_ktx2(stored: np.ndarray, vk_format: int, scheme: int = _NONE) -> bytes:
    """Return a KTX 2 of stored values (h, w, channels) of uint8; scheme 2 is Zstandard, 3 zlib."""
    plain = stored.tobytes()
    packed = plain
    if scheme == _ZSTD:
        packed = pa.compress(plain, codec="zstd", asbytes=True)
    elif scheme == _ZLIB:
        packed = zlib.compress(plain)
    level = 104, len(packed), len(plain)
    size = stored.shape[1], stored.shape[0]
    return header_of_ktx2(vk_format, size, scheme, level) + packed
