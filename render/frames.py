"""Reading of the files that the Blender child wrote: EXR frames, and arrays.

A stranger's file may have taken over the child. Sizes are therefore known or limited beforehand,
and read from headers before any content.
"""

import zipfile
import zlib
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
    "read_arrays",
    "read_base_colours",
    "read_silhouettes",
    "read_view",
    "srgb_from_linear",
]

_MAX_CHANNELS = 8
"""Channels of a frame; Blender writes four."""
_MAX_COLOUR_BYTES = 1 << 22
"""Bytes of the base colours, of which there are some 20,000."""
_FRAMES = ("colour", "geometry")

_UNREADABLE_ARRAYS = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    MemoryError,
    RuntimeError,  # also NotImplementedError, of an unknown compression
    zipfile.BadZipFile,
    zlib.error,
)
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
    sides = ((window.left, window.width), (window.top, window.height))
    is_inside = all(0 <= low < low + size <= into.rgba.shape[1] for low, size in sides)
    if not is_inside or not 0 <= view < len(into.cameras):
        raise FrameError(f"view {view}: there is no {window} in the picture")
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


def read_silhouettes(folder: Path, count: int, side: int) -> Float32[np.ndarray, "v s s"]:
    """Return the opacity of silhouette_NNN.exr for `count` views. Raises FrameError."""
    paths = [folder / f"silhouette_{view:03d}.exr" for view in range(count)]
    window = Window(left=0, top=0, width=side, height=side)
    return np.stack([_read(path, "Combined", "A", window)[..., 0] for path in paths])


def read_base_colours(folder: Path) -> BaseColours:
    """Return the points and colours of base_colours.npz. Raises FrameError."""
    path = folder / "base_colours.npz"
    arrays = read_arrays(path, _MAX_COLOUR_BYTES)
    try:
        colours = BaseColours(**{name: arrays[name] for name in ("points", "colours", "lit")})
    except KeyError as error:
        raise FrameError(f"{path.name}: has no {error}") from error
    count = len(colours.lit)
    if colours.points.shape != (count, 3) or colours.colours.shape != (count, 3):
        raise FrameError(f"{path.name}: has not {count} points with a colour each")
    if not (np.isfinite(colours.points).all() and np.isfinite(colours.colours).all()):
        raise FrameError(f"{path.name}: contains non-finite values")
    return colours


def read_arrays(path: Path, max_bytes: int) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file, which may have `max_bytes` unpacked. Raises FrameError."""
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(member.file_size for member in file.infolist())
        if size > max_bytes:
            raise FrameError(f"{path.name}: {size} bytes of arrays; the limit is {max_bytes}")
        with np.load(path, allow_pickle=False) as arrays:
            read = {name: arrays[name] for name in arrays.files}
        if not all(isinstance(array, np.ndarray) for array in read.values()):
            raise ValueError("a member is no array")  # numpy returns it as bytes
        return read
    except _UNREADABLE_ARRAYS as error:
        raise FrameError(f"{path.name}: unreadable: {error}") from error


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


def _read(path: Path, name: str, parts: str, window: Window) -> Float32[np.ndarray, "h w c"]:
    """Return the channels of one pass, such as ViewLayer.Normal.X, along the last axis."""
    try:
        with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
            _check_header(path.name, file, window)
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = file.parts[0].channels
            planes = [channels[f"ViewLayer.{name}.{part}"].pixels for part in parts]
    except (RuntimeError, ValueError, OSError, KeyError, MemoryError) as error:
        raise FrameError(f"{path.name}: unreadable frame: {error}") from error
    return np.stack(planes, axis=-1).astype(np.float32)


def _check_header(name: str, file: OpenEXR.File, window: Window) -> None:
    """Raise FrameError unless a frame is a plain image of the window's size."""
    header = file.parts[0].header
    low, high = header["dataWindow"]
    width, height = (int(end) - int(start) + 1 for start, end in zip(low, high, strict=True))
    if (width, height) != (window.width, window.height):
        message = f"has {width}x{height} pixels, not {window.width}x{window.height}"
        raise FrameError(f"{name}: {message}")
    is_plain = len(file.parts) == 1 and header["type"] == OpenEXR.scanlineimage
    if not is_plain or len(header["channels"]) > _MAX_CHANNELS:
        raise FrameError(f"{name}: is not a plain image")
