"""Headers of encoded images: the size, and whether the file is truncated."""

import struct
from collections.abc import Iterator

from core.failures import FailureKind
from glb.glb_error import GlbError
from glb.limits import GlbLimits

__all__ = ["check_image_size", "image_size", "is_cut_off", "is_known_format", "is_ktx2", "is_png"]

_PNG, _JPEG, _KTX2 = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xabKTX 20\xbb\r\n\x1a\n"

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of segments that contain the size: SOF0 to SOF15, without DHT, JPG and DAC."""
_JPEG_BARE = frozenset((0x01, *range(0xD0, 0xD9)))
"""Markers that no segment follows."""
_JPEG_SCAN = 0xDA


def image_size(data: memoryview) -> tuple[int, int] | None:
    """Return width and height of a PNG, JPEG, WebP or KTX 2; None for other and broken files."""
    try:
        if is_png(data) and data[12:16] == b"IHDR":
            return struct.unpack_from(">II", data, 16)
        if data[:2] == _JPEG:
            return _jpeg_size(data)
        if _is_webp(data):
            return _webp_size(data)
        if is_ktx2(data):
            return struct.unpack_from("<II", data, 20)
    except (struct.error, IndexError):
        pass
    return None


def is_png(data: memoryview) -> bool:
    """Return whether an image is a PNG by its first bytes."""
    return data[:8] == _PNG


def is_ktx2(data: memoryview) -> bool:
    """Return whether an image is KTX 2 by its first bytes, whatever its media type says."""
    return data[:12] == _KTX2


def is_known_format(data: memoryview) -> bool:
    """Return whether an image is PNG, JPEG, WebP or KTX 2 by its first bytes."""
    return is_png(data) or data[:2] == _JPEG or _is_webp(data) or is_ktx2(data)


def check_image_size(name: str, size: tuple[int, int], limits: GlbLimits) -> None:
    """Raise GlbError (`too_large`) if an image has more pixels than `max_image_pixels`."""
    width, height = size
    if width * height > limits.max_image_pixels:
        message = f"{name} has {width} x {height} pixels"
        raise GlbError(FailureKind.TOO_LARGE, f"{message}; the limit is {limits.max_image_pixels}")


def is_cut_off(data: memoryview) -> bool:
    """Return whether a JPEG or WebP is truncated; Blender would fill up the missing part."""
    if data[:2] == _JPEG:
        # A preview in an earlier segment has an end of its own.
        scans = (offset for marker, offset in _jpeg_segments(data) if marker == _JPEG_SCAN)
        return b"\xff\xd9" not in bytes(data[next(scans, len(data)) :])
    if data[:4] == b"RIFF" and len(data) >= 8:
        return struct.unpack_from("<I", data, 4)[0] + 8 > len(data)
    return False


def _is_webp(data: memoryview) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _jpeg_size(data: memoryview) -> tuple[int, int] | None:
    for marker, offset in _jpeg_segments(data):
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, offset + 5)
            return width, height
    return None


def _jpeg_segments(data: memoryview) -> Iterator[tuple[int, int]]:
    """Yield marker and offset of the segments up to the first scan, or to the end of the file."""
    offset = 2
    while offset + 3 < len(data):
        marker = data[offset + 1] if data[offset] == 0xFF else 0
        if marker in (0, 0xFF):  # padding, or bytes between two segments, which decoders skip
            offset += 1
        elif marker in _JPEG_BARE:
            offset += 2
        else:
            yield marker, offset
            if marker == _JPEG_SCAN:
                return
            offset += 2 + struct.unpack_from(">H", data, offset + 2)[0]


def _webp_size(data: memoryview) -> tuple[int, int] | None:
    kind = bytes(data[12:16])
    if kind == b"VP8X":
        # Width and height minus one, 24 bits each.
        low = struct.unpack_from("<HBHB", data, 24)
        return (low[0] | low[1] << 16) + 1, (low[2] | low[3] << 16) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
