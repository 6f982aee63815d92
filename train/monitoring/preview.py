"""Preview images: rows of views with a name per row."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

__all__ = ["draw_rows"]

_MARGIN = 48
"""Width in pixels of the left margin, which has the names of the rows."""


def draw_rows(rows: Mapping[str, Float[Tensor, "v c h w"]], size: tuple[int, int]) -> Image.Image:
    """Draw one image with a named row per entry.

    A row has its views side by side, in [0, 1], grey or RGB, resized to `size` (height, width).
    """
    height, width = size
    columns = max(len(views) for views in rows.values())
    sheet = Image.new("RGB", (_MARGIN + columns * width, len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, views) in enumerate(rows.items()):
        draw.text((4, row * height + height // 2), name, fill="black")
        scaled = F.interpolate(views.float(), size, mode="bilinear", antialias=True)
        pixels = (scaled.clamp(0, 1).expand(-1, 3, -1, -1) * 255).round().to(torch.uint8)
        for column, view in enumerate(pixels.permute(0, 2, 3, 1).cpu().numpy()):
            sheet.paste(Image.fromarray(view), (_MARGIN + column * width, row * height))
    return sheet
