"""Reading and checking of the pictures that a user passes in."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from core.confined.confined_process import ConfinedFailure, ConfinedProcess
from core.errors import BadInput, WorkFailed
from core.failures import Fault
from core.paths.regular_file import open_regular
from train.inference.picture_decoder import MAX_PIXELS

__all__ = ["ENDINGS", "check_not_empty", "decode_file", "on_white", "read_picture", "read_pictures"]

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
"""Suffixes of the files in a folder that are read as pictures."""
_MAX_FILE = 512 << 20
"""Bytes of a picture file: 64 megapixels of 16-bit RGBA, uncompressed."""
_MAX_SECONDS = 30.0
"""Time in which it must be decoded."""
_MAX_MEMORY = 4 << 30
"""Bytes of resident memory of the process that decodes it."""
_FLAT_RANGE = 2 / 255
"""Largest range of values, on a scale of 1, at which a picture counts as a single colour."""


def read_picture(path: Path) -> Image.Image:
    """Read a picture as RGBA; see `read_pictures`."""
    return read_pictures([path])[0]


def read_pictures(paths: Sequence[Path]) -> list[Image.Image]:
    """Read pictures as RGBA, turned as their EXIF orientation says.

    Raises BadInput if a file is missing or is not a PNG, JPEG, WebP or TIFF picture that can be
    decoded within the limits, and WorkFailed if the process that decodes it does not run.
    """
    with ConfinedProcess("decoding") as process:
        return [decode_file(path, process) for path in paths]


def decode_file(path: Path, process: ConfinedProcess, seconds: float = _MAX_SECONDS) -> Image.Image:
    """Read one picture, which `process` decodes; see `read_pictures`."""
    data = _content(path)
    try:
        size, pixels = process.run(
            "train.inference.picture_decoder:decode_picture",
            data=data,
            seconds=seconds,
            max_bytes=_MAX_MEMORY,
            max_answer=4 * MAX_PIXELS,
        )
    except ConfinedFailure as error:
        if error.kind.fault is Fault.INFRASTRUCTURE:
            raise WorkFailed(f"{path}: cannot be decoded now, try again: {error}") from None
        raise BadInput(f"{path}: cannot be read as a picture: {error}") from None
    if isinstance(size, str):
        raise BadInput(f"{path}: {size}")
    try:
        return Image.frombuffer("RGBA", size, pixels, "raw", "RGBA", 0, 1)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{path}: its decoder sent invalid pixels: {error}") from None


def _content(path: Path) -> bytes:
    """Return the content of a picture file. Raises BadInput."""
    try:
        if path.is_dir():
            raise BadInput(f"{path}: is a folder, not a picture")
        with open_regular(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MAX_FILE:
                raise BadInput(f"{path}: has {size} bytes; the limit for a picture is {_MAX_FILE}")
            return bytes(file.read(_MAX_FILE))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such picture file or folder") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from None


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
