"""Preparation of the query picture of Zero123++: a masked object in the middle of a square.

If the picture's alpha masks something, alpha is the mask. Otherwise the picture is composited over
white and the background removed: a plain one by flood fill from the border (OpenCV), any other by
rembg if that is installed.
"""

import importlib.util
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from core.errors import BadInput

__all__ = ["Query", "has_mask", "prepare_query"]

_TRANSPARENT = 128
"""Alpha, of 255, below which a pixel counts as masked out."""
_MIN_MASKED_SHARE = 0.01
"""Share of masked-out pixels from which alpha is a mask; glass and soft corners stay below it."""
_VISIBLE = 8
"""Alpha, of 255, above which a pixel is part of the object's bounding box."""
_PLAIN_SHARE = 0.95
"""Share of border pixels near the median border colour from which a background is plain."""
_TOLERANCE = 12
"""Largest difference per channel, of 255, from the colour of a plain background."""
_OBJECT_SHARE = 0.85
"""Length of the object's longer side over the square's side, as in InstantMesh."""
_BORDER = 2
"""Width in pixels of the border whose colour is examined."""
_JPEG_BLOCK = 8
"""Side of a JPEG block in pixels: artefacts around an object are at most this long."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A prepared query picture."""

    image: Image.Image
    """RGBA, square."""
    background: str
    """How the background was removed: alpha, plain or rembg; kept if it was not."""


def prepare_query(
    image: Image.Image, *, keep_background: bool = False, keep_framing: bool = False
) -> Query:
    """Mask the object, crop the picture to it and centre it in a square.

    With `keep_background` the picture is only padded to a square, with `keep_framing` it is masked
    and padded. Raises BadInput if no pixel of the object is left.
    """
    rgba = np.array(image.convert("RGBA"))
    masked, method = (rgba, "kept") if keep_background else _mask(rgba)
    if method == "kept":
        return Query(image=_pad_to_square(Image.fromarray(rgba)), background=method)
    rows, columns = (np.flatnonzero((masked[..., 3] > _VISIBLE).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise BadInput("the query shows nothing: every pixel is transparent or background")
    if keep_framing:
        return Query(image=_pad_to_square(Image.fromarray(masked)), background=method)
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Query(image=_centre_in_square(Image.fromarray(masked).crop(box)), background=method)


def has_mask(image: Image.Image) -> bool:
    """Return whether the picture's alpha masks something out."""
    return _masks_out(np.array(image.convert("RGBA")))


def _masks_out(rgba: UInt8[np.ndarray, "h w 4"]) -> bool:
    return bool((rgba[..., 3] < _TRANSPARENT).mean() >= _MIN_MASKED_SHARE)


def _mask(rgba: UInt8[np.ndarray, "h w 4"]) -> tuple[UInt8[np.ndarray, "h w 4"], str]:
    """Return the picture with a masking alpha channel, and how the mask was made."""
    if _masks_out(rgba):
        return rgba, "alpha"
    image = Image.fromarray(rgba)
    rgba = np.array(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image))
    background = _plain_background(rgba[..., :3])
    if background is not None:
        masked = rgba.copy()
        masked[..., 3] = _erode(~background)
        return masked, "plain"
    if importlib.util.find_spec("rembg") is not None:
        import rembg

        return np.array(rembg.remove(Image.fromarray(rgba)).convert("RGBA")), "rembg"
    return rgba, "kept"


def _erode(inside: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Remove the outermost pixels of a mask, which are mixed with the background.

    Parts of the object that are too thin to survive this keep their pixels; specks around the
    object are removed.
    """
    mask, square = inside.astype(np.uint8), np.ones((3, 3), np.uint8)
    core = cv2.erode(mask, square)
    if not core.any():
        return mask * 255
    thin = cv2.morphologyEx(mask, cv2.MORPH_TOPHAT, square)
    _, parts, boxes, _ = cv2.connectedComponentsWithStats(thin, connectivity=8)
    sides = boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1)
    thin[sides[parts] <= _JPEG_BLOCK] = 0
    # Grown by one pixel; otherwise the eroded rim would disconnect thin parts from the object.
    thin = cv2.dilate(thin, square)
    _, labels = cv2.connectedComponents(mask, connectivity=8)
    of_bodies = np.isin(labels, np.unique(labels[core > 0]))
    kept = (core > 0) | (inside & (thin > 0))
    return (of_bodies & kept).astype(np.uint8) * 255


def _plain_background(rgb: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"] | None:
    """Return the pixels of the border's colour that are connected to it.

    The result is None if the border has more than one colour.
    """
    edge = np.ones(rgb.shape[:2], dtype=bool)
    edge[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    colour = np.median(rgb[edge], axis=0)
    near = (np.abs(rgb.astype(np.float32) - colour) <= _TOLERANCE).all(axis=-1)
    if near[edge].mean() < _PLAIN_SHARE:
        return None
    _, labels = cv2.connectedComponents(near.astype(np.uint8), connectivity=4)
    border_labels = np.unique(labels[edge & near])
    return np.isin(labels, border_labels) & near


def _pad_to_square(image: Image.Image) -> Image.Image:
    """Centre an image in a white square of its longer side."""
    side = max(image.size)
    square = Image.new("RGBA", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _centre_in_square(cropped: Image.Image) -> Image.Image:
    """Centre an image in a transparent square whose side it fills to `_OBJECT_SHARE`."""
    side = max(round(max(cropped.size) / _OBJECT_SHARE), 1)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    square.paste(cropped, ((side - cropped.width) // 2, (side - cropped.height) // 2))
    return square
