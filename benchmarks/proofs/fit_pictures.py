"""Images that compare held-out views of a fit with their targets: colour, depth and normals."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

__all__ = ["comparison"]

_MARGIN = 16
_CELL = 224
"""Width and height of a view in the sheet, in pixels."""


def comparison(
    columns: Mapping[str, Mapping[str, Float[Tensor, "v c h w"]]],
) -> Image.Image:
    """Draw a sheet with a row per view, and per quantity (`rgb`, `depth`, `normals`) all columns.

    `columns` also contain `alpha`; depth and normals are white where it is at most 0.5. Near depth
    is bright; the scale is that of the first column's view.
    """
    first = next(iter(columns.values()))
    count, quantities = len(first["rgb"]), ("rgb", "depth", "normals")
    sheet = Image.new(
        "RGB", (len(quantities) * len(columns) * _CELL, _MARGIN + count * _CELL), "white"
    )
    draw = ImageDraw.Draw(sheet)
    x = 0
    for quantity in quantities:
        for name, pictures in columns.items():
            draw.text((x + 4, 2), f"{quantity}: {name}", fill="black")
            cells = _cells(quantity, pictures, first["depth"])
            for row, cell in enumerate(cells):
                sheet.paste(Image.fromarray(cell), (x, _MARGIN + row * _CELL))
            x += _CELL
    return sheet


def _cells(quantity: str, pictures: Mapping[str, Tensor], true_depth: Tensor) -> list:
    values = pictures[quantity].float()
    if quantity == "depth":
        near = true_depth.where(true_depth > 0, torch.inf).amin(dim=(1, 2, 3), keepdim=True)
        far = true_depth.amax(dim=(1, 2, 3), keepdim=True)
        values = 0.1 + 0.8 * (far - values) / (far - near).clamp(min=1e-6)
    if quantity == "normals":
        values = values / 2 + 0.5
    if quantity != "rgb":
        values = values.where(pictures["alpha"] > 0.5, 1)
    scaled = F.interpolate(
        values.expand(-1, 3, -1, -1), (_CELL, _CELL), mode="bilinear", antialias=True
    )
    pixels = (scaled.clamp(0, 1) * 255).round().to(torch.uint8)
    return list(pixels.permute(0, 2, 3, 1).cpu().numpy())
