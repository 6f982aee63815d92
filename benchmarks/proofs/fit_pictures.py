"""Held-out views of a fit beside their targets: colour, depth and normals."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

__all__ = ["comparison"]

_MARGIN = 16
_CELL = 224
"""Side of a picture in pixels."""


def comparison(
    columns: Mapping[str, Mapping[str, Float[Tensor, "v c h w"]]],
) -> Image.Image:
    """A row for each view; for each quantity (`rgb`, `depth`, `normals`) every column's picture.

    `columns` also hold `alpha`, outside of which depth and normals are left white. Depth is bright
    near by, on the scale of the first column's view.
    """
    first = next(iter(columns.values()))
    count, kinds = len(first["rgb"]), ("rgb", "depth", "normals")
    sheet = Image.new("RGB", (len(kinds) * len(columns) * _CELL, _MARGIN + count * _CELL), "white")
    draw = ImageDraw.Draw(sheet)
    place = 0
    for kind in kinds:
        for name, pictures in columns.items():
            draw.text((place + 4, 2), f"{kind}: {name}", fill="black")
            cells = _cells(kind, pictures, first["depth"])
            for row, cell in enumerate(cells):
                sheet.paste(Image.fromarray(cell), (place, _MARGIN + row * _CELL))
            place += _CELL
    return sheet


def _cells(kind: str, pictures: Mapping[str, Tensor], true_depth: Tensor) -> list:
    values = pictures[kind].float()
    if kind == "depth":
        near = true_depth.where(true_depth > 0, torch.inf).amin(dim=(1, 2, 3), keepdim=True)
        far = true_depth.amax(dim=(1, 2, 3), keepdim=True)
        values = 0.1 + 0.8 * (far - values) / (far - near).clamp(min=1e-6)
    if kind == "normals":
        values = values / 2 + 0.5
    if kind != "rgb":
        values = values.where(pictures["alpha"] > 0.5, 1)
    scaled = F.interpolate(
        values.expand(-1, 3, -1, -1), (_CELL, _CELL), mode="bilinear", antialias=True
    )
    pixels = (scaled.clamp(0, 1) * 255).round().to(torch.uint8)
    return list(pixels.permute(0, 2, 3, 1).cpu().numpy())
