"""Reading and checking of the pictures that a user passes in."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from core.errors import BadInput

__all__ = ["ENDINGS", "check_not_empty", "on_white", "read_picture"]

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes of the files in a folder that are read as pictures."""
_FLAT_RANGE = 2 / 255
"""Largest range of values, on a scale of 1, at which a picture counts as a single colour."""


def read_picture(path: Path) -> Image.Image:
    """Read a picture as RGBA, turned as its EXIF orientation says.

    Raises BadInput if the file is missing or is not a picture.
    """
    try:
        with Image.open(path) as image:
            return _to_8_bits(ImageOps.exif_transpose(image)).convert("RGBA")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such picture file or folder") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a folder, not a picture") from None
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise BadInput(f"{path}: is not a picture in a known format") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"{path}: cannot be read as a picture: {error}") from None


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Convert grey of 16 or 32 bits, or of floating point, to 8 bits; return other images as given.

    White is 65535 for integers and 1 for floating point, or the largest value if that is above.
    Pillow's own conversion would clip instead of scaling.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0, neginf=0)
    white = max(1.0 if image.mode == "F" else 65535.0, values.max())
    return Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8))


def on_white(image: Image.Image) -> Float[Tensor, "3 h w"]:
    """Return RGB in [0, 1], composited over white."""
    pixels = torch.from_numpy(np.asarray(image.convert("RGBA"), dtype=np.float32)).movedim(-1, 0)
    rgb, alpha = pixels[:3] / 255, pixels[3:] / 255
    return rgb * alpha + (1 - alpha)


def check_not_empty(rgb: Float[Tensor, "3 h w"], what: str) -> None:
    """Raise BadInput if the whole picture has one colour; `what` names it in the message."""
    low, high = rgb.amin(dim=(1, 2)), rgb.amax(dim=(1, 2))
    if (high - low).max() <= _FLAT_RANGE:
        raise BadInput(f"{what} shows nothing: all its pixels have the same colour")
