"""The six views that a mesh is made of: where they were seen from, and how they come from files.

The cameras are those that InstantMesh's inference takes for granted: what Zero123++ v1.2 shows,
from a distance of 4 with a field of view of 30 degrees.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from core.errors import BadInput
from dataset.cameras import Camera
from dataset.zero123plus_cameras import NUM_TARGETS, target_cameras
from train.data.resize import resize
from train.inference.input_pictures import ENDINGS, check_not_empty, on_white, read_picture
from train.models.zero123plus.latents import SHEET

__all__ = [
    "DISTANCE",
    "VIEW_NAME",
    "camera_tensors",
    "input_cameras",
    "read_views",
    "stack_views",
]

DISTANCE = 4.0
"""Of the cameras from the centre of the cube [-1, 1]^3."""
VIEW_NAME = "view-{}.png"
"""Of view i in a folder that `lrm multiview` wrote."""
_OURS = re.compile(r"^view-\d+\.png$")
_ASPECT_TOLERANCE = 0.01


def input_cameras(distance: float = DISTANCE, azimuth: float = 0.0) -> list[Camera]:
    """Return the cameras of the six views, at InstantMesh's distance unless another is known."""
    return target_cameras(azimuth, distance)


def camera_tensors(
    cameras: Sequence[Camera],
) -> tuple[Float[Tensor, "1 v 4 4"], Float[Tensor, "1 v 4"]]:
    """camera_to_world and intrinsics, as a batch of one object."""
    matrices = np.stack([camera.camera_to_world for camera in cameras]).astype(np.float32)
    lenses = np.stack([camera.intrinsics for camera in cameras]).astype(np.float32)
    return torch.from_numpy(matrices)[None], torch.from_numpy(lenses)[None]


def read_views(path: Path) -> list[Image.Image]:
    """Six views, in their order: a sheet of 3 rows and 2 columns, or a folder of six pictures.

    Of a folder that `lrm multiview` wrote, its views; else all pictures, sorted by name. Raises
    BadInput naming what is wrong.
    """
    return _of_folder(path) if path.is_dir() else _of_sheet(path)


def stack_views(images: Sequence[Image.Image], side: int) -> Float[Tensor, "1 v 3 s s"]:
    """Views as the model takes them: RGB in [0, 1] on white, `side` pixels wide and high.

    Raises BadInput for a view that is not square or shows nothing.
    """
    stacked = []
    for number, image in enumerate(images):
        if image.width != image.height:
            raise BadInput(f"view {number} is {image.width} x {image.height} pixels, not square")
        rgb = on_white(image)
        check_not_empty(rgb, f"view {number}")
        stacked.append(resize({"rgb": rgb[None]}, side)["rgb"])
    return torch.cat(stacked)[None]


def _of_folder(folder: Path) -> list[Image.Image]:
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    own = [path for path in pictures if _OURS.match(path.name)]
    chosen = own or pictures
    if len(chosen) != NUM_TARGETS:
        what = "views" if own else "pictures"
        raise BadInput(f"{folder}: has {len(chosen)} {what}, and a mesh is made of {NUM_TARGETS}")
    return [read_picture(path) for path in chosen]


def _of_sheet(path: Path) -> list[Image.Image]:
    sheet = read_picture(path)
    width, height = sheet.size
    rows, columns = SHEET
    if abs(width * rows - height * columns) > _ASPECT_TOLERANCE * height * columns:
        raise BadInput(
            f"{path}: is {width} x {height} pixels, no sheet of {NUM_TARGETS} square views in "
            f"{rows} rows and {columns} columns; make one of a single picture with lrm multiview"
        )
    side = min(width // columns, height // rows)
    corners = [(side * (i % columns), side * (i // columns)) for i in range(NUM_TARGETS)]
    return [sheet.crop((left, top, left + side, top + side)) for left, top in corners]
