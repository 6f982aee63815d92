"""What crosses the border between a worker and its Blender child: plain data, as JSON lines.

Both sides of the border import it: of third parties and of the project, only what the child has.
"""

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from typing import Any

from core.failures import FailureKind
from glb.limits import GlbLimits

__all__ = [
    "COLOUR_MARK",
    "CameraSpec",
    "DevicesRequest",
    "GeometryRequest",
    "MeasureRequest",
    "OpenRequest",
    "RenderRequest",
    "Rendered",
    "Reply",
    "Request",
    "WarmRequest",
    "Window",
    "decode_answer",
    "decode_request",
    "encode",
]

COLOUR_MARK = "-- colour frames --"
"""A line of the child's log, after which it renders colour."""


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
    limits: GlbLimits


@dataclass(frozen=True, kw_only=True)
class MeasureRequest:
    """Render silhouettes, and sample points on the surface of the open object."""

    cameras: list[CameraSpec]
    resolution: int
    num_points: int
    seed: int
    threads: int
    out: str
    """Folder for silhouette_NNN.exr (views count from 0) and points.npy."""


@dataclass(frozen=True, kw_only=True)
class GeometryRequest:
    """Sample points with normals on the surface of the open object, and write its mesh."""

    num_points: int
    seed: int
    out: str
    """Folder for surface.npz."""


@dataclass(frozen=True, kw_only=True)
class RenderRequest:
    """Render all views of the open object."""

    cameras: list[CameraSpec]
    resolution: int
    samples: int
    """The most."""
    min_samples: int
    quality: float
    """In dB: fewer samples where fewer reach it."""
    denoise: bool
    device: str
    threads: int
    texture_size: int
    """Textures are scaled down to at most this side."""
    light_strength: float
    light_gradient: float
    seed: int
    out: str
    """Folder for colour_NNN.exr and geometry_NNN.exr (views count from 0)."""


@dataclass(frozen=True, kw_only=True)
class WarmRequest:
    """Render something small, so that the driver compiles its kernels before time counts."""

    device: str
    threads: int
    out: str


@dataclass(frozen=True, kw_only=True)
class DevicesRequest:
    """List the GPUs that Cycles could render on."""


Request = (
    OpenRequest | MeasureRequest | GeometryRequest | RenderRequest | WarmRequest | DevicesRequest
)
_REQUESTS = {kind.__name__: kind for kind in typing.get_args(Request)}


@dataclass(frozen=True, kw_only=True)
class Window:
    """The part of a picture outside which there is nothing but background, in pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """Both frames of a view lie ready, while the child goes on with the next."""

    view: int
    window: Window | None
    """What the frames show of the picture. None: no part of the object, and there are no frames."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The child's answer to one request."""

    kind: FailureKind | None = None
    """None if it went well."""
    message: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def encode(message: Request | Rendered | Reply) -> str:
    """One line of JSON."""
    return json.dumps({"type": type(message).__name__, **dataclasses.asdict(message)}) + "\n"


def decode_request(line: str) -> Request:
    """Return the request in a line. Raises ValueError or KeyError if there is none."""
    values = json.loads(line)
    kind = _REQUESTS[values.pop("type")]
    if "cameras" in values:
        values["cameras"] = [CameraSpec(**camera) for camera in values["cameras"]]
    if "limits" in values:
        values["limits"] = GlbLimits(**values["limits"])
    return kind(**values)


def decode_answer(line: str) -> Rendered | Reply:
    """Return what the child says in a line. Raises ValueError, KeyError or TypeError if it is
    nothing, or a failure of an unknown kind."""
    values = json.loads(line)
    kind = values.pop("type")
    if kind == "Rendered":
        window = values["window"]
        return Rendered(view=values["view"], window=Window(**window) if window else None)
    if kind != "Reply":
        raise ValueError("not an answer")
    if values["kind"] is not None:
        values["kind"] = FailureKind.named(values["kind"])
    return Reply(**values)
