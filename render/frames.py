"""Reads the frames that Blender wrote and turns them into views."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import OpenEXR
from jaxtyping import Float, Float32, UInt8

from dataset.cameras import Camera
from dataset.views import ViewSet

__all__ = ["FrameError", "read_silhouettes", "read_views", "srgb_from_linear"]

_NO_HIT = 1e9
"""Cycles writes 1e10 as the depth of the background."""


class FrameError(Exception):
    """A frame is missing, unreadable or of another size."""


def read_views(folder: Path, cameras: Sequence[Camera]) -> ViewSet:
    """All views below `folder` (colour_NNNN.exr, geometry_NNNN.exr). Raises FrameError."""
    rgba, depth, normals = [], [], []
    for frame in range(1, len(cameras) + 1):
        colour = _read(folder / f"colour_{frame:04d}.exr", "Combined", "RGBA")
        rgba.append(_straight_srgb(colour))
        geometry = folder / f"geometry_{frame:04d}.exr"
        distance = _read(geometry, "Depth", "Z")[..., 0]
        hit = distance < _NO_HIT
        depth.append(np.where(hit, distance, 0))
        normals.append(_unit(_read(geometry, "Normal", "XYZ"), hit))
    return ViewSet(
        cameras=list(cameras),
        rgba=_stack(rgba),
        depth=_stack(depth).astype(np.float32),
        normals=_stack(normals).astype(np.float32),
    )


def read_silhouettes(folder: Path, count: int) -> Float32[np.ndarray, "v h w"]:
    """The opacity of silhouette_NNNN.exr. Raises FrameError."""
    paths = [folder / f"silhouette_{frame:04d}.exr" for frame in range(1, count + 1)]
    return _stack([_read(path, "Combined", "A")[..., 0] for path in paths])


def srgb_from_linear(linear: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The sRGB curve (IEC 61966-2-1): Blender's `Standard` view transform."""
    low, high = linear * 12.92, 1.055 * np.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, low, high)


def _straight_srgb(premultiplied: Float[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 4"]:
    alpha = premultiplied[..., 3:].clip(0, 1)
    linear = np.where(alpha > 0, premultiplied[..., :3] / np.maximum(alpha, 1e-6), 0)
    rgb = srgb_from_linear(linear.clip(0, 1))
    return np.rint(np.concatenate([rgb, alpha], axis=-1) * 255).astype(np.uint8)


def _unit(normals: Float[np.ndarray, "h w 3"], hit: np.ndarray) -> Float[np.ndarray, "h w 3"]:
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(hit[..., None] & (length > 0), normals / np.maximum(length, 1e-12), 0)


def _read(path: Path, name: str, parts: str) -> Float32[np.ndarray, "h w c"]:
    """Channels of one pass, such as ViewLayer.Normal.X; a lone letter gives a last axis of one."""
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = file.parts[0].channels
            found = [channels[f"ViewLayer.{name}.{part}"].pixels for part in parts]
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        raise FrameError(f"{path.name}: unreadable frame: {error}") from error
    return np.stack(found, axis=-1).astype(np.float32)


def _stack(frames: list[np.ndarray]) -> np.ndarray:
    if len({frame.shape for frame in frames}) != 1:
        raise FrameError("the frames are not all of one size")
    return np.stack(frames)
