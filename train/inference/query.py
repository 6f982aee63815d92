"""The query picture of Zero123++: the object alone, in the middle of a square, with alpha.

Alpha is the mask where it leaves something out; else it is laid over white. A plain background is
told by its colour and filled from the border (OpenCV), any other is left to rembg if installed.
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
"""Alpha below which a pixel counts as left out when it is asked whether there is a mask,"""
_LEFT_OUT = 0.01
"""and the share of such pixels from which there is one: glass or soft corners are none."""
_VISIBLE = 8
_PLAIN_SHARE = 0.95
"""Share of the border that must be near its median colour for the background to be plain."""
_TOLERANCE = 12
"""Levels by which a plain background may differ from that colour."""
_FOREGROUND = 0.85
"""Share of the square's side that the object's longer side takes, as InstantMesh has it."""
_BORDER = 2
_JPEG_BLOCK = 8
"""Pixels; what JPEG adds around an object is no longer than that."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A picture ready for the pipeline."""

    image: Image.Image
    """RGBA, square."""
    background: str
    """How the object was told from it: alpha, plain, rembg, or kept if it was not."""


def prepare_query(image: Image.Image, *, keep_background: bool = False) -> Query:
    """Mask the object, cut it out and put it into the middle of a square.

    Raises BadInput if nothing is left of it.
    """
    rgba = np.array(image.convert("RGBA"))
    masked, how = (rgba, "kept") if keep_background else _mask(rgba)
    if how == "kept":
        return Query(image=_padded(Image.fromarray(rgba)), background=how)
    rows, columns = (np.flatnonzero((masked[..., 3] > _VISIBLE).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise BadInput("the query shows nothing: all of it is transparent or background")
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return Query(image=_centred(Image.fromarray(masked).crop(box)), background=how)


def has_mask(image: Image.Image) -> bool:
    """Whether alpha leaves something out of the picture."""
    return _leaves_out(np.array(image.convert("RGBA")))


def _leaves_out(rgba: UInt8[np.ndarray, "h w 4"]) -> bool:
    return bool((rgba[..., 3] < _TRANSPARENT).mean() >= _LEFT_OUT)


def _mask(rgba: UInt8[np.ndarray, "h w 4"]) -> tuple[UInt8[np.ndarray, "h w 4"], str]:
    if _leaves_out(rgba):
        return rgba, "alpha"
    image = Image.fromarray(rgba)
    rgba = np.array(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image))
    outside = _plain_background(rgba[..., :3])
    if outside is not None:
        masked = rgba.copy()
        masked[..., 3] = _without_rim(~outside)
        return masked, "plain"
    if importlib.util.find_spec("rembg") is not None:
        import rembg

        return np.array(rembg.remove(Image.fromarray(rgba)).convert("RGBA")), "rembg"
    return rgba, "kept"


def _without_rim(inside: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """A mask without the outermost pixels, which are mixed with the background.

    Parts of an object that are too thin to have other pixels keep theirs; specks beside it go.
    """
    mask, square = inside.astype(np.uint8), np.ones((3, 3), np.uint8)
    core = cv2.erode(mask, square)
    if not core.any():
        return mask * 255
    thin = cv2.morphologyEx(mask, cv2.MORPH_TOPHAT, square)
    _, parts, boxes, _ = cv2.connectedComponentsWithStats(thin, connectivity=8)
    sides = boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1)
    thin[sides[parts] <= _JPEG_BLOCK] = 0
    # Grown by one pixel, or the rim of what they hang on would part them from it.
    thin = cv2.dilate(thin, square)
    _, labels = cv2.connectedComponents(mask, connectivity=8)
    of_bodies = np.isin(labels, np.unique(labels[core > 0]))
    kept = (core > 0) | (inside & (thin > 0))
    return (of_bodies & kept).astype(np.uint8) * 255


def _plain_background(rgb: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"] | None:
    """What is reached from the border without leaving its colour; None if it has not just one."""
    edge = np.ones(rgb.shape[:2], dtype=bool)
    edge[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    colour = np.median(rgb[edge], axis=0)
    near = (np.abs(rgb.astype(np.float32) - colour) <= _TOLERANCE).all(axis=-1)
    if near[edge].mean() < _PLAIN_SHARE:
        return None
    _, labels = cv2.connectedComponents(near.astype(np.uint8), connectivity=4)
    reached = np.unique(labels[edge & near])
    return np.isin(labels, reached) & near


def _padded(image: Image.Image) -> Image.Image:
    """In the middle of a white square."""
    side = max(image.size)
    square = Image.new("RGBA", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _centred(cut: Image.Image) -> Image.Image:
    """In the middle of a transparent square that it does not quite fill."""
    side = max(round(max(cut.size) / _FOREGROUND), 1)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return square
