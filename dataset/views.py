"""The rendered views of one object, and how they become the members of a sample.

docs/dataset-format.md states every member, field and unit.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from dataset.cameras import Camera
from dataset.errors import WorkFailed

__all__ = [
    "META_MEMBER",
    "ViewSet",
    "decode_depth",
    "decode_normal",
    "decode_rgba",
    "decode_views",
    "encode_views",
    "parse_cameras",
    "view_member",
]

META_MEMBER = "json"
SAMPLE_FORMAT = 1
_DEPTH_LEVELS = 65535


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewSet:
    """All views of one object, in the order of their cameras."""

    cameras: Sequence[Camera]
    rgba: UInt8[np.ndarray, "v h w 4"]
    """sRGB with straight alpha."""
    depth: Float32[np.ndarray, "v h w"]
    """Planar depth in world units; 0 where the pixel's centre shows background."""
    normals: Float32[np.ndarray, "v h w 3"]
    """Unit normals in world axes; zero where nothing was hit."""


def view_member(view: int, kind: str) -> str:
    """The member name of one picture of a view: kind is `rgba`, `depth` or `normal`."""
    return f"{view:03d}.{kind}.{'png' if kind == 'depth' else 'webp'}"


def encode_views(views: ViewSet, meta: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """The members of a sample: its metadata, and the pictures view by view.

    `meta` is stored beside the cameras. The shard sorts members by name. Depth is exact to half of
    `depth_scale` (the largest depth / 65535), normals to 1/255 a component, RGBA is lossless.
    """
    scale = max(float(views.depth.max(initial=0.0)), 1e-6) / _DEPTH_LEVELS
    cameras = [
        {
            "camera_to_world": camera.camera_to_world.astype(float).tolist(),
            "intrinsics": camera.intrinsics.astype(float).tolist(),
        }
        for camera in views.cameras
    ]
    height, width = views.depth.shape[1:]
    header = {"format": SAMPLE_FORMAT, "height": height, "width": width, "depth_scale": scale}
    header |= {"views": cameras} | dict(meta)
    yield META_MEMBER, json.dumps(header, sort_keys=True).encode()
    for view in range(len(views.cameras)):
        yield view_member(view, "rgba"), _webp(views.rgba[view])
        levels = np.rint(views.depth[view] / scale).astype(np.uint16)
        yield view_member(view, "depth"), _png16(levels)
        yield view_member(view, "normal"), _webp(_normals_to_bytes(views.normals[view]))


def decode_views(members: Mapping[str, bytes]) -> tuple[ViewSet, dict[str, Any]]:
    """The views and the metadata of a whole sample. Raises WorkFailed if a member is unreadable."""
    try:
        header = json.loads(members[META_MEMBER])
        count = len(header["views"])
        scale = header["depth_scale"]
        rgba = [decode_rgba(members[view_member(v, "rgba")]) for v in range(count)]
        depth = [decode_depth(members[view_member(v, "depth")], scale) for v in range(count)]
        normals = [decode_normal(members[view_member(v, "normal")]) for v in range(count)]
    except (KeyError, ValueError, OSError) as error:
        raise WorkFailed(f"a sample cannot be decoded: {type(error).__name__}: {error}") from error
    views = ViewSet(
        cameras=parse_cameras(header),
        rgba=np.stack(rgba),
        depth=np.stack(depth),
        normals=np.stack(normals),
    )
    return views, header


def parse_cameras(header: Mapping[str, Any]) -> list[Camera]:
    """The cameras in a sample's metadata member."""
    return [
        Camera(
            camera_to_world=np.array(view["camera_to_world"], dtype=np.float32),
            intrinsics=np.array(view["intrinsics"], dtype=np.float32),
        )
        for view in header["views"]
    ]


def decode_rgba(data: bytes) -> UInt8[np.ndarray, "h w 4"]:
    """sRGB with straight alpha."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA"))


def decode_depth(data: bytes, depth_scale: float) -> Float32[np.ndarray, "h w"]:
    """Planar depth in world units, 0 for background."""
    with Image.open(io.BytesIO(data)) as image:
        levels = np.asarray(image, dtype=np.uint16)
    return levels.astype(np.float32) * np.float32(depth_scale)


def decode_normal(data: bytes) -> Float32[np.ndarray, "h w 3"]:
    """Unit normals in world axes, zero where nothing was hit (stored as black)."""
    with Image.open(io.BytesIO(data)) as image:
        levels = np.asarray(image.convert("RGB"))
    normals = levels.astype(np.float32) * np.float32(2 / 255) - 1
    hit = levels.any(axis=-1, keepdims=True)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(hit, normals / np.maximum(length, 1e-6), 0).astype(np.float32)


def _normals_to_bytes(normals: Float32[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    hit = normals.any(axis=-1, keepdims=True)
    return np.where(hit, np.rint((normals + 1) * 127.5), 0).astype(np.uint8)


def _webp(pixels: UInt8[np.ndarray, "h w c"]) -> bytes:
    out = io.BytesIO()
    # `exact` keeps the colour below a zero alpha: the round trip has no exceptions.
    Image.fromarray(pixels).save(out, "WEBP", lossless=True, quality=20, method=1, exact=True)
    return out.getvalue()


def _png16(levels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(levels).save(out, "PNG", compress_level=3)
    return out.getvalue()
