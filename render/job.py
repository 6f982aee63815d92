"""What crosses the border between a worker and its Blender child: plain data, as JSON lines.

Standard library only: both sides of the border import it.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "CameraSpec",
    "FailureKind",
    "MeasureRequest",
    "OpenRequest",
    "RenderRequest",
    "Reply",
    "Request",
    "decode_reply",
    "decode_request",
    "encode",
]

FailureKind = Literal[
    "refused",
    "unsupported_extension",
    "import_error",
    "empty",
    "too_large",
    "timeout",
    "out_of_memory",
    "crash",
    "bad_output",
    "no_device",
    "no_start",
]
"""Every way in which rendering an object fails."""


@dataclass(frozen=True, kw_only=True)
class CameraSpec:
    """A camera as in dataset.cameras, in plain lists."""

    camera_to_world: list[list[float]]
    intrinsics: list[float]


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """Load a GLB into an empty scene and normalise it."""

    glb: str
    normalise: str
    """`cube`: bounding box into [-1, 1]^3; `sphere`: bounding sphere of radius 1."""
    max_nodes: int
    max_triangles: int
    max_texture_pixels: int
    """Of all textures together."""


@dataclass(frozen=True, kw_only=True)
class MeasureRequest:
    """Render silhouettes, and sample points on the surface of the open object."""

    cameras: list[CameraSpec]
    resolution: int
    num_points: int
    seed: int
    threads: int
    out: str
    """Folder for silhouette_NNNN.exr (frames count from 1) and points.npy."""


@dataclass(frozen=True, kw_only=True)
class RenderRequest:
    """Render all views of the open object."""

    cameras: list[CameraSpec]
    resolution: int
    samples: int
    denoise: bool
    device: str
    threads: int
    texture_size: int
    """Textures are scaled down to at most this side."""
    world_strength: float
    sun_strength: float
    seed: int
    out: str
    """Folder for colour_NNNN.exr and geometry_NNNN.exr (frames count from 1)."""


Request = OpenRequest | MeasureRequest | RenderRequest
_REQUESTS = {kind.__name__: kind for kind in (OpenRequest, MeasureRequest, RenderRequest)}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The child's answer to one request."""

    kind: FailureKind | None = None
    """None if it went well."""
    message: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def encode(message: Request | Reply) -> str:
    """One line of JSON."""
    return json.dumps({"type": type(message).__name__, **dataclasses.asdict(message)}) + "\n"


def decode_request(line: str) -> Request:
    """The request in a line. Raises ValueError or KeyError if there is none."""
    values = json.loads(line)
    kind = _REQUESTS[values.pop("type")]
    if "cameras" in values:
        values["cameras"] = [CameraSpec(**camera) for camera in values["cameras"]]
    return kind(**values)


def decode_reply(line: str) -> Reply:
    """The reply in a line. Raises ValueError, KeyError or TypeError if there is none."""
    values = json.loads(line)
    if values.pop("type") != "Reply":
        raise ValueError("not a reply")
    return Reply(**values)
