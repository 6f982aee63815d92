"""The rendered views of one object, encoded as the members of a sample and decoded again.

docs/reference/dataset-format.md describes every member, field and unit.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8

from core.errors import WorkFailed
from dataset.cameras import Camera
from dataset.format.encoding import (
    decode_depth,
    decode_normal,
    decode_rgba,
    encode_depth,
    encode_normal,
    encode_rgba,
    largest_depth,
)

__all__ = [
    "DEFAULT_RESOLUTION",
    "META_MEMBER",
    "OBJECT_RADIUS",
    "SAMPLE_FORMAT",
    "ViewSet",
    "decode_depth",
    "decode_normal",
    "decode_rgba",
    "decode_views",
    "depth_scale_for",
    "encode_meta",
    "encode_view",
    "encode_views",
    "parse_cameras",
    "view_member",
]

META_MEMBER = "json"
SAMPLE_FORMAT = 2
"""Increase it when the members of a sample change their meaning; no other format is read."""
DEFAULT_RESOLUTION = 512
"""Default side of a view in pixels, for rendering and for supervision in training."""
OBJECT_RADIUS = math.sqrt(3)
"""Radius of the sphere around the cube [-1, 1]^3, which contains every object, in world units."""
_FINEST_DEPTH_SCALE = 2**-12
"""World units per depth level."""


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


def view_member(view: int, kind: Literal["rgba", "depth", "normal"]) -> str:
    """Return the member name of one picture of a view."""
    return f"{view:03d}.{kind}.webp"


def depth_scale_for(cameras: Sequence[Camera]) -> float:
    """Return world units per depth level: 2^-12, doubled until all depths fit into 16 bits.

    It depends only on the cameras, so a view can be encoded before the next one is rendered. It is
    a power of two, so that level times scale is exact in float32.
    """
    farthest = max(float(np.linalg.norm(camera.camera_to_world[:3, 3])) for camera in cameras)
    scale = _FINEST_DEPTH_SCALE
    while largest_depth(scale) < farthest + OBJECT_RADIUS:
        scale *= 2
    return scale


def encode_view(
    view: int,
    rgba: UInt8[np.ndarray, "h w 4"],
    depth: Float32[np.ndarray, "h w"],
    normals: Float32[np.ndarray, "h w 3"],
    depth_scale: float,
) -> Iterator[tuple[str, bytes]]:
    """Yield the members of one view. Raises WorkFailed if a depth exceeds the scale's range.

    RGBA is lossless; the error of a depth is at most half of `depth_scale`, that of a normal 0.65
    degrees.
    """
    try:
        yield view_member(view, "rgba"), encode_rgba(rgba)
        yield view_member(view, "depth"), encode_depth(depth, depth_scale)
        yield view_member(view, "normal"), encode_normal(normals)
    except WorkFailed as error:
        raise WorkFailed(f"view {view} cannot be encoded: {error}") from None


def encode_meta(
    cameras: Sequence[Camera],
    height: int,
    width: int,
    depth_scale: float,
    meta: Mapping[str, Any],
) -> tuple[str, bytes]:
    """Return the metadata member: `meta`, and the fields that are needed to decode the views."""
    header = {"format": SAMPLE_FORMAT, "height": height, "width": width}
    views = [
        {
            "camera_to_world": camera.camera_to_world.astype(float).tolist(),
            "intrinsics": camera.intrinsics.astype(float).tolist(),
        }
        for camera in cameras
    ]
    fields = {**meta, **header, "depth_scale": depth_scale, "views": views}
    return META_MEMBER, json.dumps(fields, sort_keys=True).encode()


def encode_views(views: ViewSet, meta: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield the members of a sample: its metadata, then the pictures view by view.

    `meta` is added to the metadata. The shard sorts members by name. Raises WorkFailed if a depth
    is larger than an object in [-1, 1]^3 allows.
    """
    scale = depth_scale_for(views.cameras)
    height, width = views.depth.shape[1:]
    yield encode_meta(views.cameras, height, width, scale, meta)
    for view in range(len(views.cameras)):
        pictures = views.rgba[view], views.depth[view], views.normals[view]
        yield from encode_view(view, *pictures, scale)


def decode_views(
    members: Mapping[str, bytes], num_views: int | None = None
) -> tuple[ViewSet, dict[str, Any]]:
    """Decode the views (all, or the first `num_views`) and the metadata of a sample.

    Raises WorkFailed if a member is unreadable, or if the sample has another format.
    """
    try:
        header = json.loads(members[META_MEMBER])
        cameras, scale = parse_cameras(header)[:num_views], header["depth_scale"]
        numbers = range(len(cameras))
        return ViewSet(
            cameras=cameras,
            rgba=np.stack([decode_rgba(members[view_member(v, "rgba")]) for v in numbers]),
            depth=np.stack(
                [decode_depth(members[view_member(v, "depth")], scale) for v in numbers]
            ),
            normals=np.stack([decode_normal(members[view_member(v, "normal")]) for v in numbers]),
        ), header
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise WorkFailed(f"a sample cannot be decoded: {type(error).__name__}: {error}") from error


def parse_cameras(header: Mapping[str, Any]) -> list[Camera]:
    """Return the cameras of a sample.

    Raises WorkFailed if the sample has another format, and ValueError or KeyError if a camera has
    other numbers than a pose and four intrinsics.
    """
    sample_format = header.get("format")
    if sample_format != SAMPLE_FORMAT:
        raise WorkFailed(
            f"{header.get('asset_id', 'a sample')}: sample format {sample_format}, but this "
            f"version reads only {SAMPLE_FORMAT}; build the dataset again"
        )
    return [
        Camera(
            camera_to_world=np.array(view["camera_to_world"], dtype=np.float32).reshape(4, 4),
            intrinsics=np.array(view["intrinsics"], dtype=np.float32).reshape(4),
        )
        for view in header["views"]
    ]
