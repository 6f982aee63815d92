"""The six input views of a reconstruction: their cameras, and reading them from files.

The cameras are those of InstantMesh's inference: the directions of Zero123++ v1.2, at a distance of
4 world units with a field of view of 30 degrees.
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
from train.inference.input_pictures import (
    ENDINGS,
    check_not_empty,
    on_white,
    read_picture,
    read_pictures,
)
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
"""Distance of the cameras from the centre of the cube [-1, 1]^3, in world units."""
VIEW_NAME = "view-{}.png"
"""File name of view i in a folder that `lrm multiview` wrote."""
_VIEW_PATTERN = re.compile(r"^view-\d+\.png$")
_ASPECT_TOLERANCE = 0.01
"""Relative deviation from 2:3 up to which a picture is read as a sheet of six views."""


def input_cameras(distance: float = DISTANCE, azimuth: float = 0.0) -> list[Camera]:
    """Return the cameras of the six views; by default at InstantMesh's distance."""
    return target_cameras(azimuth, distance)


def camera_tensors(
    cameras: Sequence[Camera],
) -> tuple[Float[Tensor, "1 v 4 4"], Float[Tensor, "1 v 4"]]:
    """Return camera_to_world and intrinsics as a batch of one object."""
    matrices = np.stack([camera.camera_to_world for camera in cameras]).astype(np.float32)
    lenses = np.stack([camera.intrinsics for camera in cameras]).astype(np.float32)
    return torch.from_numpy(matrices)[None], torch.from_numpy(lenses)[None]


def read_views(path: Path) -> list[Image.Image]:
    """Read six views in order from a sheet of 3 rows and 2 columns, or from a folder of pictures.

    In a folder that `lrm multiview` wrote, its views are read; in any other, all pictures, sorted
    by name. Raises BadInput if there are not exactly six views.
    """
    return _read_folder(path) if path.is_dir() else _read_sheet(path)


def stack_views(images: Sequence[Image.Image], side: int) -> Float[Tensor, "1 v 3 s s"]:
    """Return views as model input: RGB in [0, 1] on white, `side` pixels wide and high.

    Raises BadInput if a view is not square or has a single colour.
    """
    stacked = []
    for number, image in enumerate(images):
        if image.width != image.height:
            raise BadInput(
                f"view {number}: is {image.width} x {image.height} pixels, not square; crop or pad "
                "it to a square"
            )
        rgb = on_white(image)
        check_not_empty(rgb, f"view {number}")
        stacked.append(resize({"rgb": rgb[None]}, side)["rgb"])
    return torch.cat(stacked)[None]


def _read_folder(folder: Path) -> list[Image.Image]:
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    views = [path for path in pictures if _VIEW_PATTERN.match(path.name)]
    chosen = views or pictures
    if len(chosen) != NUM_TARGETS:
        what = "views" if views else "pictures"
        raise BadInput(f"{folder}: has {len(chosen)} {what}; a mesh needs exactly {NUM_TARGETS}")
    return read_pictures(chosen)


def _read_sheet(path: Path) -> list[Image.Image]:
    sheet = read_picture(path)
    width, height = sheet.size
    rows, columns = SHEET
    if abs(width * rows - height * columns) > _ASPECT_TOLERANCE * height * columns:
        raise BadInput(
            f"{path}: is {width} x {height} pixels, not a sheet of {NUM_TARGETS} square views in "
            f"{rows} rows and {columns} columns; make one from a single picture with lrm multiview"
        )
    side = min(width // columns, height // rows)
    corners = [(side * (i % columns), side * (i // columns)) for i in range(NUM_TARGETS)]
    return [sheet.crop((left, top, left + side, top + side)) for left, top in corners]
