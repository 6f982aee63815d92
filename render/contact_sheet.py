"""Contact sheets: one image with the colours, depths and normals of all views of an object."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from dataset.views import ViewSet

__all__ = ["contact_sheet"]

_COLUMNS = 8
_TITLE_HEIGHT = 24


def contact_sheet(views: ViewSet, title: str = "", tile: int = 144) -> Image.Image:
    """Return an image with rows of eight views: colour on white, depth (near is bright), normals.

    `tile` is the side of a view in pixels. A title is written on a line of its own at the top.
    """
    count = len(views.cameras)
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    top = _TITLE_HEIGHT if title else 0
    sheet = Image.new("RGB", (columns * tile, top + rows * 3 * tile), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 6), _printable(title), fill="black")
    near, far = _depth_range(views)
    for view in range(count):
        row, column = divmod(view, columns)
        layers = (
            _on_white(views.rgba[view]),
            _grey(views.depth[view], near, far),
            _colours(views.normals[view]),
        )
        for layer, pixels in enumerate(layers):
            corner = (column * tile, top + (row * 3 + layer) * tile)
            sheet.paste(Image.fromarray(pixels).resize((tile, tile), Image.Resampling.BOX), corner)
        draw.text((column * tile + 4, top + row * 3 * tile + 2), str(view), fill="gray")
    return sheet


def _on_white(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _depth_range(views: ViewSet) -> tuple[float, float]:
    hit = views.depth[views.depth > 0]
    return (float(hit.min()), float(hit.max())) if hit.size else (0.0, 1.0)


def _grey(depth: np.ndarray, near: float, far: float) -> UInt8[np.ndarray, "h w 3"]:
    brightness = 1 - 0.85 * (depth - near) / max(far - near, 1e-6)
    grey = np.where(depth > 0, np.clip(brightness, 0, 1) * 255, 0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _colours(normals: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    hit = normals.any(axis=-1, keepdims=True)
    return np.where(hit, np.rint((normals + 1) * 127.5), 255).astype(np.uint8)


def _printable(title: str) -> str:
    """Return the title on one line, with characters that the built-in font draws.

    Names of objects are untrusted text.
    """
    return "".join(c if c.isprintable() and ord(c) < 256 else "?" for c in title)[:120]
