"""The decoding of a picture to RGBA, in a confined process."""

import io

from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["FORMATS", "MAX_PIXELS", "decode_picture"]

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
"""Names of the formats in Pillow. Some of its others start programs, such as Ghostscript for EPS.
"""
MAX_PIXELS = 8192 * 8192


def decode_picture(data: memoryview) -> tuple[list[int] | str, bytes]:
    """Return size and RGBA pixels of a picture, turned as its EXIF orientation says.

    Of several frames or pages, the first is read. A text instead of the size is the reason why the
    picture cannot be read.
    """
    Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS takes its place
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                limit = f"the limit is {MAX_PIXELS}: scale it down"
                return f"has {width} x {height} pixels; {limit}", b""
            pixels = _to_8_bits(ImageOps.exif_transpose(image)).convert("RGBA")
    except UnidentifiedImageError:
        return "is not a picture in the format PNG, JPEG, WebP or TIFF", b""
    except (OSError, ValueError, SyntaxError) as error:
        return f"cannot be read as a picture: {error}", b""
    return list(pixels.size), pixels.tobytes()


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Convert grey of 16 or 32 bits, or of floating point, to 8 bits; return other images as given.

    White is 65535 for integers and 1 for floating point, or the largest value if that is above.
    Pillow's own conversion would clip instead of scaling.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    # Imported here because other pictures do not need it.
    import numpy as np

    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0, neginf=0)
    white = max(1.0 if image.mode == "F" else 65535.0, values.max())
    return Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8))
