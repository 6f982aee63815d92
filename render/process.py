"""Supervision of a Blender child: limits on time and memory, failure kinds, replacement.

Blender crashes, hangs and leaks memory. A failure costs one object; the next gets a new child.
"""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Float32

from core.errors import is_disk_full
from core.failures import FailureKind, StageFailed
from core.paths.scratch import scratch_folder
from dataset.cameras import Camera
from dataset.format.geometry import SurfaceGeometry, surface_from_arrays
from dataset.views import ViewSet
from glb.limits import GlbLimits
from render.child import Child
from render.frames import (
    BaseColours,
    FrameError,
    empty_views,
    read_arrays,
    read_base_colours,
    read_silhouettes,
    read_view,
)
from render.job import (
    CameraSpec,
    CompileRequest,
    DevicesRequest,
    GeometryRequest,
    MeasureRequest,
    OpenRequest,
    Rendered,
    RenderRequest,
    Reply,
    Request,
    decode_answer,
)
from render.render_config import BlenderLimits, RenderConfig
from render.render_log import split_seconds

__all__ = [
    "BlenderProcess",
    "ChildReport",
    "Measurement",
    "RenderFailure",
    "RenderReport",
    "SceneReport",
]

_START_SECONDS = 180.0
_POLL_SECONDS = 0.2
_POINT_BYTES, _TRIANGLE_BYTES, _HEADERS = 48, 96, 1 << 16
"""Most bytes in a file of arrays: of a surface point with its normal, of a triangle with its three
vertices, each in double precision, and of the headers."""
_MIN_FREE_BYTES = 4 << 20
"""Free space of the scratch folder below which a failure counts as a full disk."""
_CHILD_IS_HEALTHY = frozenset(
    {
        FailureKind.MALFORMED,
        FailureKind.EXTERNAL_REFERENCE,
        FailureKind.UNSUPPORTED_EXTENSION,
        FailureKind.EMPTY,
        FailureKind.TOO_LARGE,
        FailureKind.REFUSED,
        FailureKind.IMPORT_ERROR,
    }
)
"""Failures of the object alone: the child that reports one can open the next object."""


class RenderFailure(StageFailed):
    """An object could not be rendered, for the reason in `kind` and `message`."""

    log_tail: str
    """The end of Blender's output."""

    def __init__(self, kind: FailureKind, message: str, log_tail: str = "") -> None:
        super().__init__(kind, message, log_tail)


@dataclass(frozen=True, kw_only=True)
class ChildReport:
    """The properties of a newly started child."""

    blender: str
    """Blender's version."""
    not_confined: str
    """Why the system did not allow the full confinement (core.confined.confine); empty if it did.
    """
    gpus: list[tuple[str, str]]
    """Backend and name of each GPU; `device="gpu"` uses all GPUs of the first backend."""
    seconds: float
    """Time that the child took to start."""


@dataclass(frozen=True, kw_only=True)
class SceneReport:
    """The properties of an opened object."""

    num_nodes: int
    """Nodes that a picture shows."""
    num_triangles: int
    """Drawn triangles, counted once per instance."""
    special_triangles: dict[str, int]
    """Triangles that draw nothing (`invisible`) or repeat others (`coincident`), and those that are
    drawn from their front only (`culled`)."""
    num_materials: int
    """Distinct materials that are drawn."""
    base_colour_images: list[int]
    """Images of the file that their base colours show."""
    notes: list[str]
    """One line for each thing that the file has but the picture lacks."""
    num_images: int
    num_texture_pixels: int
    scale: float
    """World units after normalisation per unit of the file."""
    centre: list[float]
    """The point that became the origin, in units of the file with z up."""
    timings: dict[str, float]
    """Seconds per part; `start` is that of a new child, 0 if the child already ran."""


@dataclass(frozen=True, kw_only=True)
class RenderReport:
    """The samples and timings of a render."""

    samples: int
    """Samples per pixel of the colours, as chosen for this object."""
    timings: dict[str, float]
    """Seconds per part; see docs/reference/rendering.md."""
    base_colours: BaseColours


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """The silhouettes and surface points of an object."""

    coverage: Float[np.ndarray, "v"]
    """Share of the image that the object fills, per view."""
    points: Float32[np.ndarray, "n 3"]
    """Points spread evenly over the surface, in the normalised frame."""


class BlenderProcess:
    """A Blender child that holds one open object at a time. Not thread-safe.

    The kernel kills the child when the thread that started it ends (the one of the first `open`).
    With `device="gpu"` a new child compiles its kernels before it opens an object, under a time
    limit of its own.
    """

    def __init__(
        self, limits: BlenderLimits, device: str = "cpu", glb_limits: GlbLimits | None = None
    ) -> None:
        """Start nothing yet; `glb_limits` limit the GLB files, by default GlbLimits()."""
        self._limits = limits
        self._glb_limits = glb_limits or GlbLimits()
        self._device = device
        self._child: Child | None = None
        self._objects = 0
        self._disk_was_full = False
        """Whether the scratch folder was full at some time during the last request."""
        self._start_data: dict[str, str] = {}
        """Data of the reply that the child sent when it was ready."""
        self._start_seconds = 0.0
        """Seconds that the last `open` spent on starting a child."""
        self._has_scene = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id of the child, None if there is no child."""
        return None if self._child is None else self._child.pid

    @property
    def has_scene(self) -> bool:
        """Whether the object opened last is still open."""
        return self._has_scene and self._child is not None and self._child.is_alive()

    def close(self) -> None:
        """Kill the child and every process in its group."""
        if self._child is not None:
            self._child.kill()
        self._child = None
        self._has_scene = False

    def child_report(self) -> ChildReport:
        """Start a child and return its properties. Raises RenderFailure."""
        data = self._call(DevicesRequest(), self._limits.import_seconds)
        gpus = [(str(backend), str(name)) for backend, name in data["gpus"]]
        return ChildReport(**self._start_data, gpus=gpus, seconds=self._start_seconds)

    def open(self, glb: Path, normalise: str, cull_shells: bool = True) -> SceneReport:
        """Load an object and normalise it. Raises RenderFailure.

        `cull_shells` is the setting of `RenderConfig`.
        """
        if self._needs_replacement():
            self.close()
        self._has_scene = False
        self._objects += 1
        if self._child is not None:
            self._child.clear_log()
        request = OpenRequest(
            glb=str(glb.absolute()),
            normalise=normalise,
            cull_shells=cull_shells,
            limits=self._glb_limits,
        )
        self._start_seconds = 0.0
        data = self._call(request, self._limits.import_seconds)
        self._has_scene = True
        data["timings"]["start"] = self._start_seconds
        return SceneReport(**data)

    def measure(
        self,
        cameras: Sequence[Camera],
        resolution: int = 128,
        num_points: int = 200_000,
        seed: int = 0,
    ) -> Measurement:
        """Return silhouettes and surface points of the open object. Raises RenderFailure."""
        with scratch_folder("measure") as out:
            request = MeasureRequest(
                cameras=_specs(cameras),
                resolution=resolution,
                num_points=num_points,
                seed=seed,
                threads=self._limits.threads,
                out=out,
            )
            self._call(request, self._limits.measure_seconds)
            try:
                alpha = read_silhouettes(Path(out), len(cameras), resolution)
                arrays = read_arrays(Path(out) / "points.npz", num_points * _POINT_BYTES + _HEADERS)
                points = arrays["points"]
            except (FrameError, KeyError) as error:
                raise self._invalid_render(f"unreadable measurement: {error}") from error
        if points.shape != (num_points, 3) or not np.isfinite(points).all():
            raise self._invalid_render(f"the measurement has no {num_points} finite points")
        return Measurement(coverage=alpha.mean(axis=(1, 2)), points=points)

    def geometry(self, num_points: int = 100_000, seed: int = 0) -> SurfaceGeometry:
        """Return points on the surface of the open object, and its mesh. Raises RenderFailure."""
        with scratch_folder("geometry") as out:
            request = GeometryRequest(num_points=num_points, seed=seed, out=out)
            self._call(request, self._limits.measure_seconds)
            try:
                triangles = self._glb_limits.max_triangles * _TRIANGLE_BYTES
                limit = num_points * _POINT_BYTES + triangles + _HEADERS
                surface = surface_from_arrays(read_arrays(Path(out) / "surface.npz", limit))
            except (FrameError, ValueError, KeyError) as error:
                raise self._invalid_render(f"unreadable geometry: {error}") from error
        if len(surface.points) != num_points:
            raise self._invalid_render(
                f"the geometry has {len(surface.points)} points, not {num_points}"
            )
        return surface

    def render(
        self,
        cameras: Sequence[Camera],
        config: RenderConfig,
        on_view: Callable[[int, ViewSet], None] | None = None,
    ) -> tuple[ViewSet, RenderReport]:
        """Render all views of the open object. Raises RenderFailure.

        Returns the views and a report. Its timings `prepare`, `geometry`, `probe`, `colour`,
        `base_colours` and `handover` add up to the duration of this call; `handover` is the time in
        which the child is idle: while it receives the request, and while the last views are read.

        `on_view` is called with the number of every view as soon as the view is filled in, while
        Blender renders the next one. An error that it raises ends the child and is passed on.
        """
        began = time.monotonic()
        views = empty_views(cameras, config.resolution)
        reading = 0.0

        def collect(rendered: Rendered) -> None:
            nonlocal reading
            started = time.monotonic()
            read_view(Path(out), rendered.view, rendered.window, into=views)
            reading += time.monotonic() - started
            if on_view is not None:
                on_view(rendered.view, views)

        with scratch_folder("render") as out:
            request = RenderRequest(
                cameras=_specs(cameras),
                resolution=config.resolution,
                samples=config.samples,
                min_samples=config.min_samples,
                quality=config.quality,
                denoise=config.denoise,
                device=config.device,
                threads=self._limits.threads,
                texture_size=config.texture_size,
                light_strength=config.light_strength,
                light_gradient=config.light_gradient,
                seed=config.seed,
                out=out,
            )
            try:
                data = self._call(request, self._limits.render_seconds, collect)
                colours = read_base_colours(Path(out))
            except FrameError as error:
                raise self._invalid_render(str(error)) from error
            except BaseException:
                self.close()  # the child is still rendering
                raise
        log = self._child.log() if self._child is not None else ""
        nested = split_seconds(log, config.denoise) | {"read": reading}
        handover = time.monotonic() - began - sum(data["timings"].values())
        timings = data["timings"] | {"handover": handover} | nested
        report = RenderReport(samples=data["samples"], timings=timings, base_colours=colours)
        return views, report

    def _call(
        self,
        request: Request,
        seconds: float,
        collect: Callable[[Rendered], None] | None = None,
    ) -> dict[str, Any]:
        """Send a request and return the data of its reply. Raises RenderFailure.

        Requests that need no open object start a child if there is none.
        """
        if self._child is None or not self._child.is_alive():
            if not isinstance(request, OpenRequest | DevicesRequest):
                raise self._no_open_object()
            self._start()
        name = type(request).__name__.removesuffix("Request").lower()
        return self._request(request, name, seconds, collect)

    def _no_open_object(self) -> RenderFailure:
        """Return the failure for a request whose child has ended, or was never started."""
        if self._child is None:
            return RenderFailure(FailureKind.CRASH, "no object is open in a Blender child")
        return self._failure(*self._child.end_reason("Blender", "a pause"))

    def _start(self) -> None:
        """Start a child, and wait until it is ready for its first object."""
        self.close()
        began = time.monotonic()
        try:
            self._child = Child(self._limits.threads)
        except OSError as error:
            kind = FailureKind.NO_SPACE if is_disk_full(error) else FailureKind.NO_START
            raise RenderFailure(kind, f"Blender does not start: {error}") from None
        self._objects = 1
        try:
            self._start_data = self._wait_for_reply(self._child, "start", _START_SECONDS).data
            if self._device != "cpu":
                with scratch_folder("compile") as out:
                    threads = self._limits.threads
                    request = CompileRequest(device=self._device, threads=threads, out=out)
                    seconds = self._limits.kernel_compile_seconds
                    self._request(request, "kernel compilation", seconds)
        except RenderFailure as error:
            # No object is involved yet: this machine cannot run Blender, or cannot now.
            no_device = error.kind == FailureKind.NO_DEVICE
            kind = FailureKind.NO_DEVICE if no_device else FailureKind.NO_START
            raise RenderFailure(kind, str(error), error.log_tail) from None
        self._start_seconds = time.monotonic() - began

    def _request(
        self,
        request: Request,
        name: str,
        seconds: float,
        collect: Callable[[Rendered], None] | None = None,
    ) -> dict[str, Any]:
        assert self._child is not None
        self._disk_was_full = False
        self._child.send(request)
        reply = self._wait_for_reply(self._child, name, seconds, collect)
        if reply.kind is not None:
            healthy = reply.kind in _CHILD_IS_HEALTHY
            raise self._failure(reply.kind, reply.message, keep_child=healthy)
        return reply.data

    def _wait_for_reply(
        self,
        child: Child,
        name: str,
        seconds: float,
        collect: Callable[[Rendered], None] | None = None,
    ) -> Reply:
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            line = child.poll(min(_POLL_SECONDS, left))
            # Files that were cut off by a full disk are read later, when it may have space again.
            self._disk_was_full = self._disk_was_full or _is_disk_full()
            if line is not None:
                try:
                    answer = decode_answer(line)
                except (ValueError, KeyError, TypeError):
                    raise self._failure(*child.end_reason("Blender", name)) from None
                if isinstance(answer, Reply):
                    return answer
                if collect is not None:
                    collect(answer)
            if time.monotonic() > deadline:
                raise self._failure(FailureKind.TIMEOUT, f"{name} took more than {seconds:g} s")
            used = child.memory()
            if used > self._limits.memory_bytes:
                limit = self._limits.memory_bytes
                message = f"{name} used {used >> 20} MiB; the limit is {limit >> 20} MiB"
                raise self._failure(FailureKind.OUT_OF_MEMORY, message)

    def _needs_replacement(self) -> bool:
        """Return whether to start a new child, because Blender leaks memory and slows down."""
        if self._child is None:
            return False
        too_large = self._child.memory() > self._limits.recycle_bytes
        return too_large or self._objects >= self._limits.objects_per_child

    def _invalid_render(self, message: str) -> RenderFailure:
        return self._failure(FailureKind.BAD_OUTPUT, message)

    def _failure(self, kind: FailureKind, message: str, keep_child: bool = False) -> RenderFailure:
        """Return the failure with the end of the log; ends the child unless `keep_child`."""
        log_tail = self._child.log_tail() if self._child is not None else ""
        self._has_scene = False
        if not keep_child:
            no_space = os.strerror(errno.ENOSPC) in message + log_tail
            if no_space or self._disk_was_full or _is_disk_full():
                kind = FailureKind.NO_SPACE
                message = f"no space left in {tempfile.gettempdir()}: {message}"
            self.close()
        return RenderFailure(kind, message, log_tail)


def _is_disk_full() -> bool:
    """Return whether the scratch folder is full now."""
    return shutil.disk_usage(tempfile.gettempdir()).free < _MIN_FREE_BYTES


def _specs(cameras: Sequence[Camera]) -> list[CameraSpec]:
    return [
        CameraSpec(
            camera_to_world=camera.camera_to_world.astype(float).tolist(),
            intrinsics=camera.intrinsics.astype(float).tolist(),
        )
        for camera in cameras
    ]
