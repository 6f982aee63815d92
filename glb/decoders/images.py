"""Images in a form that Blender reads."""

from glb.decoders.ktx2 import decode_ktx2
from glb.decoders.png import encode_png
from glb.image_headers import is_ktx2
from glb.limits import GlbLimits

__all__ = ["blender_image"]


def blender_image(data: memoryview, limits: GlbLimits) -> bytes | None:
    """Return a KTX 2 image as a PNG, and None for an image that needs no conversion.

    Raises GlbError: `malformed`, `too_large`, or `unsupported_extension` for a KTX 2 format that
    cannot be decoded.
    """
    return encode_png(decode_ktx2(data, limits)) if is_ktx2(data) else None
