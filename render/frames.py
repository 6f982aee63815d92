"""Reading of the EXR frames that Blender wrote, and their conversion to views."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import OpenEXR
from jaxtyping import Bool, Float, Float32, UInt8

from dataset.cameras import Camera
from dataset.views import ViewSet
from render.job import Window

__all__ = [
    "BaseColours",
    "FrameError",
    "empty_views",
    "read_base_colours",
    "read_silhouettes",
    "read_view",
    "srgb_from_linear",
]

_FRAMES = ("colour", "geometry")

_BACKGROUND_DEPTH = 1e9
"""Depths from here on are background; Cycles writes 1e10."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BaseColours:
    """The base colour of an object at points of its surface, by its file alone."""

    points: Float32[np.ndarray, "n 3"]
    """Spread evenly by area, also over hidden parts."""
    colours: Float32[np.ndarray, "n 3"]
    """Linear RGB in [0, 1]; 0 where the material lets light pass, because the picture then shows
    what is behind it, too."""
    lit: Bool[np.ndarray, "n"]
    """Whether the point reflects light; otherwise it shows its base colour."""


class FrameError(Exception):
    """A frame is missing, unreadable or has an unexpected size."""


def empty_views(cameras: Sequence[Camera], resolution: int) -> ViewSet:
    """Return views of background only, for `read_view` to fill in."""
    shape = (len(cameras), resolution, resolution)
    return ViewSet(
        cameras=list(cameras),
        rgba=np.zeros((*shape, 4), np.uint8),
        depth=np.zeros(shape, np.float32),
        normals=np.zeros((*shape, 3), np.float32),
    )


def read_view(folder: Path, view: int, window: Window | None, into: ViewSet) -> None:
    """Fill in one view from colour_NNN.exr and geometry_NNN.exr, and remove the files.

    The frames show only the window of the image; None stands for a view without the object, which
    has no frames. Raises FrameError.
    """
    if window is None:
        return
    colour_path, geometry_path = (folder / f"{name}_{view:03d}.exr" for name in _FRAMES)
    colour = _read(colour_path, "Combined", "RGBA", window)
    distance = _read(geometry_path, "Depth", "Z", window)[..., 0]
    normals = _read(geometry_path, "Normal", "XYZ", window)
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    hit = distance < _BACKGROUND_DEPTH
    into.rgba[view, rows, columns] = _straight_srgb(colour)
    into.depth[view, rows, columns] = np.where(hit, distance, 0)
    into.normals[view, rows, columns][hit] = _unit(normals[hit])
    colour_path.unlink()
    geometry_path.unlink()


def read_silhouettes(folder: Path, count: int) -> Float32[np.ndarray, "v h w"]:
    """Return the opacity of silhouette_NNN.exr for `count` views. Raises FrameError."""
    paths = [folder / f"silhouette_{view:03d}.exr" for view in range(count)]
    frames = [_read(path, "Combined", "A")[..., 0] for path in paths]
    if len({frame.shape for frame in frames}) != 1:
        raise FrameError("the silhouettes are not all of one size")
    return np.stack(frames)


def read_base_colours(folder: Path) -> BaseColours:
    """Return the points and colours of base_colours.npz. Raises FrameError."""
    path = folder / "base_colours.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            colours = BaseColours(
                points=arrays["points"], colours=arrays["colours"], lit=arrays["lit"]
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise FrameError(f"{path.name}: unreadable: {error}") from error
    count = len(colours.lit)
    if colours.points.shape != (count, 3) or colours.colours.shape != (count, 3):
        raise FrameError(f"{path.name}: has not {count} points with a colour each")
    if not (np.isfinite(colours.points).all() and np.isfinite(colours.colours).all()):
        raise FrameError(f"{path.name}: contains non-finite values")
    return colours


def srgb_from_linear(linear: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Return sRGB values by the curve of IEC 61966-2-1, Blender's `Standard` view transform."""
    low, high = linear * 12.92, 1.055 * np.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, low, high)


def _straight_srgb(premultiplied: Float32[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 4"]:
    alpha = premultiplied[..., 3].clip(0, 1)
    visible = alpha > 0
    pixels = np.zeros(premultiplied.shape, np.uint8)
    linear = premultiplied[..., :3][visible] / np.maximum(alpha[visible], 1e-6)[:, None]
    pixels[..., :3][visible] = np.rint(srgb_from_linear(linear.clip(0, 1)) * 255)
    pixels[..., 3] = np.rint(alpha * 255)
    return pixels


def _unit(normals: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(length > 0, normals / np.maximum(length, 1e-12), 0)


def _read(
    path: Path, name: str, parts: str, window: Window | None = None
) -> Float32[np.ndarray, "h w c"]:
    """Return the channels of one pass, such as ViewLayer.Normal.X, along the last axis."""
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = file.parts[0].channels
            planes = [channels[f"ViewLayer.{name}.{part}"].pixels for part in parts]
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        raise FrameError(f"{path.name}: unreadable frame: {error}") from error
    pixels = np.stack(planes, axis=-1).astype(np.float32)
    if window is not None and pixels.shape[:2] != (window.height, window.width):
        height, width = pixels.shape[:2]
        raise FrameError(
            f"{path.name}: has {width}x{height} pixels, not {window.width}x{window.height}"
        )
    return pixels
