"""Pictures that people hand over: read, or refused with one clear line."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from core.errors import BadInput

__all__ = ["ENDINGS", "check_not_empty", "on_white", "read_picture"]

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Of the files in a folder that are taken for pictures."""
_FLAT = 2 / 255
"""A picture whose values all lie this near to each other shows nothing."""


def read_picture(path: Path) -> Image.Image:
    """The picture in a file, as RGBA and the way up that its camera noted. Raises BadInput."""
    try:
        with Image.open(path) as image:
            return _in_8_bits(ImageOps.exif_transpose(image)).convert("RGBA")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such picture") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a folder, not a picture") from None
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise BadInput(f"{path}: is no picture that can be read") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"{path}: cannot be read as a picture: {error}") from None


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Pillow itself cuts grey of 16 and 32 bits off at 255, and fractions to 0.

    White is 65535, in fractions 1; where values are above, the largest.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0, neginf=0)
    white = max(1.0 if image.mode == "F" else 65535.0, values.max())
    return Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8))


def on_white(image: Image.Image) -> Float[Tensor, "3 h w"]:
    """RGB in [0, 1] over white."""
    pixels = torch.from_numpy(np.asarray(image.convert("RGBA"), dtype=np.float32)).movedim(-1, 0)
    rgb, alpha = pixels[:3] / 255, pixels[3:] / 255
    return rgb * alpha + (1 - alpha)


def check_not_empty(rgb: Float[Tensor, "3 h w"], what: str) -> None:
    """Raise BadInput if the picture is of one colour."""
    low, high = rgb.amin(dim=(1, 2)), rgb.amax(dim=(1, 2))
    if (high - low).max() <= _FLAT:
        raise BadInput(f"{what} shows nothing: all of it has one colour")
