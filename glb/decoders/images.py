"""Images in a form that Blender reads."""

from glb.decoders.ktx2 import decode_ktx2
from glb.decoders.png import encode_png
from glb.decoders.webp import first_frame, is_animated
from glb.image_headers import is_ktx2
from glb.limits import GlbLimits

__all__ = ["blender_image"]


def blender_image(data: memoryview, limits: GlbLimits) -> bytes | None:
    """Return a KTX 2 image as a PNG, and the first frame of an animated WebP as a still one.

    None is an image that needs no conversion. Raises GlbError: `malformed`, `too_large`,
    `import_error`, or `unsupported_extension` for a KTX 2 format that cannot be decoded.
    """
    if is_ktx2(data):
        return encode_png(decode_ktx2(data, limits))
    return first_frame(data) if is_animated(data) else None
