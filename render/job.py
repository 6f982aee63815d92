"""Messages between a worker and its Blender child: plain data, sent as JSON lines.

Both processes import this module, so it imports only what the child has.
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
    "CompileRequest",
    "DevicesRequest",
    "GeometryRequest",
    "MeasureRequest",
    "OpenRequest",
    "RenderRequest",
    "Rendered",
    "Reply",
    "Request",
    "Window",
    "decode_answer",
    "decode_request",
    "encode",
]

COLOUR_MARK = "-- colour frames --"
"""Line in the child's log that precedes the output about the colour frames."""


@dataclass(frozen=True, kw_only=True)
class CameraSpec:
    """A camera of dataset.cameras as plain lists."""

    camera_to_world: list[list[float]]
    intrinsics: list[float]


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """Load a GLB into an empty scene and normalise it."""

    glb: str
    normalise: str
    """`cube`: bounding box into [-1, 1]^3; `sphere`: bounding sphere of radius 1."""
    cull_shells: bool
    """Draw shells that face inward from their front only (surfaces.shells)."""
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
    """Folder for silhouette_NNN.exr (views count from 0) and points.npz."""


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
    """Maximum per pixel."""
    min_samples: int
    quality: float
    """Target PSNR in dB; the fewest samples that reach it are used."""
    denoise: bool
    device: str
    threads: int
    texture_size: int
    """Maximum side of a texture in pixels; larger ones are scaled down."""
    light_strength: float
    light_gradient: float
    seed: int
    out: str
    """Folder for colour_NNN.exr and geometry_NNN.exr (views count from 0), and base_colours.npz."""


@dataclass(frozen=True, kw_only=True)
class CompileRequest:
    """Render something small, so that the driver compiles its kernels before the first object."""

    device: str
    threads: int
    out: str


@dataclass(frozen=True, kw_only=True)
class DevicesRequest:
    """List the GPUs on which Cycles can render."""


Request = (
    OpenRequest | MeasureRequest | GeometryRequest | RenderRequest | CompileRequest | DevicesRequest
)
_REQUESTS = {kind.__name__: kind for kind in typing.get_args(Request)}


@dataclass(frozen=True, kw_only=True)
class Window:
    """The part of an image that can show the object, in pixels; the rest is background."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """Notice that both frames of a view are written; the child goes on with the next view."""

    view: int
    window: Window | None
    """The part of the image that the frames show. None: the view does not show the object, and
    there are no frames."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The child's answer to one request."""

    kind: FailureKind | None = None
    """The failure kind, None for success."""
    message: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def encode(message: Request | Rendered | Reply) -> str:
    """Return a message as one line of JSON."""
    return json.dumps({"type": type(message).__name__, **dataclasses.asdict(message)}) + "\n"


def decode_request(line: str) -> Request:
    """Parse a request. Raises ValueError or KeyError if the line holds none."""
    values = json.loads(line)
    kind = _REQUESTS[values.pop("type")]
    if "cameras" in values:
        values["cameras"] = [CameraSpec(**camera) for camera in values["cameras"]]
    if "limits" in values:
        values["limits"] = GlbLimits(**values["limits"])
    return kind(**values)


def decode_answer(line: str) -> Rendered | Reply:
    """Parse an answer of the child.

    Raises ValueError, KeyError or TypeError if the line holds none, or an unknown failure kind.
    """
    values = json.loads(line)
    kind = values.pop("type")
    if kind == "Rendered":
        window = values["window"]
        return Rendered(view=values["view"], window=Window(**window) if window else None)
    if kind != "Reply":
        raise ValueError(f"{kind!r} is not a type of answer")
    if values["kind"] is not None:
        values["kind"] = FailureKind.from_name(values["kind"])
    return Reply(**values)
