"""PNG files (W3C PNG specification): a writer, and a filter of what changes the pixels."""

import struct
import zlib

import numpy as np

from glb.glb_error import malformed

__all__ = ["encode_png", "essential_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))
_RGBA_8_BIT = struct.pack(">5B", 8, 6, 0, 0, 0)
"""Bits, colour type, and the only methods of compression, filtering and interlacing used here."""


def encode_png(pixels: np.ndarray) -> bytes:
    """Return a PNG of pixels (h, w, 4) of uint8; it is compressed quickly rather than well."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 4 * width), np.uint8)  # each row begins with filter 0: none
    rows[:, 1:] = pixels.reshape(height, 4 * width)
    header = struct.pack(">II", width, height) + _RGBA_8_BIT
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.data, 1)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in parts)


def essential_png(data: memoryview) -> bytes:
    """Return a PNG without the chunks that do not change its pixels, which may be broken.

    Raises GlbError (`malformed`) for what no decoder accepts: a checksum of a critical chunk that
    is wrong, or an unknown critical chunk.
    """
    parts, offset = [_SIGNATURE], len(_SIGNATURE)
    while offset + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, offset)
        chunk = data[offset : offset + 12 + size]
        offset += len(chunk)
        if kind in _CRITICAL:
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise malformed(f"the checksum of a PNG's {kind.decode()} is wrong")
        elif kind[0] & 0x20 == 0:  # upper case: critical
            raise malformed("a PNG has an unknown critical chunk")
        elif kind != b"tRNS":
            continue
        parts.append(bytes(chunk))
        if kind == b"IEND":
            break
    return b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
