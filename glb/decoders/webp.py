"""Animated WebP images (RFC 9649), of which a still picture shows the first frame."""

import struct
from collections.abc import Iterator

from core.failures import FailureKind
from glb.glb_error import GlbError

__all__ = ["first_frame", "is_animated"]

_CHUNKS = 12
"""Offset of the first chunk."""
_ANIMATION, _ALPHA = 0x02, 0x10
"""Flags of VP8X."""
_FRAME_HEADER = 16


def is_animated(data: memoryview) -> bool:
    """Return whether an image is an animated WebP."""
    is_extended = data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) > 20
    return is_extended and bool(data[20] & _ANIMATION)


def first_frame(data: memoryview) -> bytes:
    """Return the first frame of an animated WebP as a WebP of its own.

    Raises GlbError (`import_error`) without a frame, and for one that leaves a part of the picture
    empty.
    """
    canvas = next((bytes(part[4:10]) for kind, part in _chunks(data[_CHUNKS:]) if kind == b"VP8X"))
    frame = next((part for kind, part in _chunks(data[_CHUNKS:]) if kind == b"ANMF"), None)
    if frame is None or bytes(frame[:12]) != bytes(6) + canvas:
        message = "the first frame of an animated WebP does not fill the picture"
        raise GlbError(FailureKind.IMPORT_ERROR, message)
    parts = {kind: bytes(part) for kind, part in _chunks(frame[_FRAME_HEADER:])}
    kept: dict[bytes, bytes] = {
        kind: parts[kind] for kind in (b"ALPH", b"VP8 ", b"VP8L") if kind in parts
    }
    if b"ALPH" in kept:
        kept = {b"VP8X": bytes([_ALPHA, 0, 0, 0]) + canvas} | kept
    chunks = b"".join(_chunk(kind, part) for kind, part in kept.items())
    return _chunk(b"RIFF", b"WEBP" + chunks)


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    offset = 0
    while offset + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, offset)
        yield kind, data[offset + 8 : offset + 8 + size]
        offset += 8 + size + size % 2


def _chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
