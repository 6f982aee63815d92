"""KTX 2 images: plain pixels of 8 bits per channel, and Basis Universal textures.

Khronos KTX file format specification, version 2.0. Only the first level is read, and only images of
two dimensions. Values are returned as they are stored: whether they are sRGB follows from the
texture's use in glTF.
"""

import importlib.util
import struct
import zlib
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from core.failures import FailureKind
from glb.glb_error import GlbError, malformed
from glb.image_headers import check_image_size, is_ktx2
from glb.limits import GlbLimits

__all__ = ["basis_size", "check_ktx2", "decode_ktx2"]

_HEADER = struct.Struct("<12s9I4I2Q3Q")
"""Identifier; format to supercompression; three ranges; offset, size and uncompressed size of level
0."""
_CHANNELS = {
    **dict.fromkeys((9, 15), "r"),
    **dict.fromkeys((16, 22), "rg"),
    **dict.fromkeys((23, 29), "rgb"),
    **dict.fromkeys((30, 36), "bgr"),
    **dict.fromkeys((37, 43), "rgba"),
    **dict.fromkeys((44, 50), "bgra"),
}
"""Channels of the plain formats, UNORM and SRGB, by VkFormat."""
_BASIS = (0, 157, 158)
"""VkFormats that Basis Universal writes: its own blocks, and ASTC blocks of 4 x 4 pixels."""
_FORMAT_NAMES = (
    (131, 146, "BC"),
    (147, 156, "ETC2 or EAC"),
    (157, 184, "ASTC"),
)
_NONE, _BASIS_LZ, _ZSTD, _ZLIB = range(4)
_BLOCK_BYTES = 16
"""Maximum size of a block of 4 x 4 pixels."""
_BASIS_PACKAGE = "opengl-basisu==0.1.0a2"


@dataclass(frozen=True)
class _Header:
    vk_format: int
    width: int
    height: int
    scheme: int
    """Supercompression: 0 none, 1 BasisLZ, 2 Zstandard, 3 zlib."""
    offset: int
    """Of level 0 in bytes, like the two sizes."""
    size: int
    uncompressed: int


def check_ktx2(data: memoryview, limits: GlbLimits) -> None:
    """Check that the format and size of an image, as its header states them, can be decoded.

    Raises GlbError: `too_large`, or `unsupported_extension` for a format that cannot be decoded
    here. Like other broken images, a broken one is found when it is decoded.
    """
    try:
        _read_header(data, limits)
    except GlbError as error:
        if error.kind is not FailureKind.MALFORMED:
            raise


def basis_size(data: memoryview, limits: GlbLimits) -> tuple[int, int] | None:
    """Return width and height of an image in Basis Universal; None for other KTX 2 images.

    Such images are decoded by a native library, which should run in a confined process only.
    Raises GlbError as `decode_ktx2` does.
    """
    header = _read_header(data, limits)
    return (header.width, header.height) if header.vk_format in _BASIS else None


def decode_ktx2(data: memoryview, limits: GlbLimits) -> NDArray[np.uint8]:
    """Return the pixels (h, w, 4) of level 0, the first row first; absent colours are 0.

    The size that the header states is checked before anything is decoded. Raises GlbError:
    `malformed`, `too_large`, or `unsupported_extension` for a format that cannot be decoded here.
    """
    header = _read_header(data, limits)
    if header.vk_format in _BASIS:
        return _decode_basis(data, header)
    channels = _CHANNELS[header.vk_format]
    size = header.width * header.height * len(channels)
    stored = np.frombuffer(_level(data, header, size), np.uint8, size)
    stored = stored.reshape(header.height, header.width, len(channels))
    pixels = np.zeros((header.height, header.width, 4), np.uint8)
    pixels[:, :, 3] = 255
    pixels[:, :, ["rgba".index(channel) for channel in channels]] = stored
    return pixels


def _read_header(data: memoryview, limits: GlbLimits) -> _Header:
    if not is_ktx2(data) or len(data) < _HEADER.size:
        raise malformed("a KTX2 image ends inside its header")
    fields = _HEADER.unpack_from(data)
    vk_format, _, width, height, depth, layers, faces, _, scheme = fields[1:10]
    header = _Header(vk_format, width, height, scheme, *fields[-3:])
    check_image_size("a KTX2 image", (width, height), limits)
    if not width or not height or depth or layers > 1 or faces != 1:
        raise malformed("a KTX2 image is not one picture of two dimensions")
    if vk_format in _CHANNELS and scheme not in (_NONE, _ZSTD, _ZLIB):
        _unsupported(f"supercompression {scheme}")
    if vk_format not in _CHANNELS and vk_format not in _BASIS:
        names = (name for low, high, name in _FORMAT_NAMES if low <= vk_format <= high)
        _unsupported(f"VkFormat {vk_format} ({next(names, 'unknown')})")
    if vk_format in _BASIS and importlib.util.find_spec("opengl_basisu") is None:
        _unsupported(f"Basis Universal, which needs a package: pip install {_BASIS_PACKAGE}")
    if header.offset + header.size > len(data):
        raise malformed("a KTX2 image ends inside its pixels")
    blocks = -(-width // 4) * -(-height // 4)
    if vk_format in _BASIS and header.uncompressed > blocks * _BLOCK_BYTES:
        raise malformed("a KTX2 image has more data than pixels")
    return header


def _unsupported(what: str) -> NoReturn:
    message = f"a KTX2 image cannot be decoded: {what}"
    raise GlbError(FailureKind.UNSUPPORTED_EXTENSION, message)


def _level(data: memoryview, header: _Header, size: int) -> memoryview:
    """Return the bytes of level 0; no more than `size` are decompressed."""
    level = data[header.offset : header.offset + header.size]
    try:
        if header.scheme == _ZSTD:
            import pyarrow as pa

            level = memoryview(pa.decompress(level, decompressed_size=size, codec="zstd"))
        elif header.scheme == _ZLIB:
            level = memoryview(zlib.decompressobj().decompress(level, size + 1))
    except (OSError, ValueError, zlib.error):
        raise malformed("the pixels of a KTX2 image cannot be decompressed") from None
    if len(level) < size or (len(level) > size and header.scheme != _NONE):
        raise malformed(f"a KTX2 image does not have the {size} bytes of its pixels")
    return level


def _decode_basis(data: memoryview, header: _Header) -> NDArray[np.uint8]:
    import opengl_basisu

    try:
        texture = opengl_basisu.open(bytes(data))
        pixels: np.ndarray = texture.transcode("rgba8", level=0).data
    except opengl_basisu.UnsupportedError as error:
        _unsupported(str(error)[:80])
    except opengl_basisu.BasisuError as error:
        raise malformed(f"a KTX2 image cannot be decoded: {str(error)[:80]}") from None
    if pixels.shape != (header.height, header.width, 4):
        raise malformed("a KTX2 image differs from the size in its header")
    return pixels
