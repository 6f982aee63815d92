"""Fake GLB files: a valid header, then bytes without meaning."""

import struct


def fake_glb(seed: int, size: int = 2_000_000) -> bytes:
    """Return about `size` bytes that depend on the seed, behind a GLB header."""
    body = bytes((seed + i * i) % 251 for i in range(1000)) * (size // 1000)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


GOOD, OTHER = fake_glb(0), fake_glb(7)
