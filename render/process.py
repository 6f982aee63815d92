"""A supervised Blender child: limits on time and memory, a log, failure kinds, replacement.

Blender crashes, hangs and leaks. A failure here costs the object; the next one gets a new child.
"""

import errno
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Float32

from core.failures import FailureKind, StageFailed
from dataset.cameras import Camera
from dataset.format.geometry import SurfaceGeometry, surface_from_arrays
from dataset.views import ViewSet
from glb.limits import GlbLimits
from render.child import Child
from render.frames import FrameError, empty_views, read_silhouettes, read_view
from render.job import (
    CameraSpec,
    DevicesRequest,
    GeometryRequest,
    MeasureRequest,
    OpenRequest,
    Rendered,
    RenderRequest,
    Reply,
    Request,
    WarmRequest,
    decode_answer,
)
from render.render_config import BlenderLimits, RenderConfig
from render.render_log import split_seconds
from render.scratch import scratch_folder

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
_FULL_BYTES = 4 << 20
_SETTLED = frozenset(
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
"""Failures that a child reports in good health: it may take the next object."""


class RenderFailure(StageFailed):
    """An object could not be rendered; `kind` says why, `log_tail` what Blender said last."""

    log_tail: str

    def __init__(self, kind: FailureKind, message: str, log_tail: str = "") -> None:
        super().__init__(kind, message, log_tail)


@dataclass(frozen=True, kw_only=True)
class ChildReport:
    """What a child says of itself before it sees an object."""

    blender: str
    """Its version."""
    not_confined: str
    """What the system did not let it give up (render.blender.confine); empty if nothing."""
    gpus: list[tuple[str, str]]
    """Backend and name of each; `device="gpu"` renders on those of the first one's backend."""
    seconds: float
    """That it took to start."""


@dataclass(frozen=True, kw_only=True)
class SceneReport:
    """What was found in an object when it was opened."""

    num_nodes: int
    num_triangles: int
    """Of the evaluated scene, instances counted each."""
    num_images: int
    num_texture_pixels: int
    scale: float
    """World units after normalisation per unit of the file."""
    centre: list[float]
    """The point of the file (z up) that became the origin."""
    timings: dict[str, float]
    """Seconds; `start` is that of a new child."""


@dataclass(frozen=True, kw_only=True)
class RenderReport:
    """How an object's views were rendered."""

    samples: int
    """Per pixel of the colours: what this object needed."""
    timings: dict[str, float]
    """Seconds; see docs/reference/rendering.md."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """What the rig sees of an object, and where its surface is."""

    coverage: Float[np.ndarray, "v"]
    """Share of the frame that the object fills, per view."""
    points: Float32[np.ndarray, "n 3"]
    """Spread evenly over the surface, in the normalised frame."""


class BlenderProcess:
    """A Blender child that holds one open object at a time. Not for several threads.

    The kernel ends the child with the thread that started it: the one of the first `open`. With
    `device="gpu"` a new child compiles its kernels before any object's time counts.
    """

    def __init__(
        self, limits: BlenderLimits, device: str = "cpu", glb_limits: GlbLimits | None = None
    ) -> None:
        """Start nothing yet; `glb_limits` are those of the files, by default GlbLimits()."""
        self._limits = limits
        self._glb_limits = glb_limits or GlbLimits()
        self._device = device
        self._child: Child | None = None
        self._objects = 0
        self._hello: dict[str, str] = {}
        """What the child said when it was up."""
        self._starting = 0.0
        """Seconds that the last `open` spent on a new child."""
        self._has_scene = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is no child."""
        return None if self._child is None else self._child.pid

    @property
    def has_scene(self) -> bool:
        """Whether the object opened last is still there."""
        return self._has_scene and self._child is not None and self._child.is_alive()

    def close(self) -> None:
        """End the child and everything it started."""
        if self._child is not None:
            self._child.kill()
        self._child = None
        self._has_scene = False

    def look(self) -> ChildReport:
        """Start a child and ask it what it has. Raises RenderFailure."""
        data = self._call(DevicesRequest(), self._limits.import_seconds)
        gpus = [(str(backend), str(name)) for backend, name in data["gpus"]]
        return ChildReport(**self._hello, gpus=gpus, seconds=self._starting)

    def open(self, glb: Path, normalise: str) -> SceneReport:
        """Load an object and normalise it. Raises RenderFailure."""
        if self._is_worn():
            self.close()
        self._has_scene = False
        self._objects += 1
        if self._child is not None:
            self._child.forget_log()
        request = OpenRequest(
            glb=str(glb.absolute()),
            normalise=normalise,
            limits=self._glb_limits,
        )
        self._starting = 0.0
        data = self._call(request, self._limits.import_seconds)
        self._has_scene = True
        data["timings"]["start"] = self._starting
        return SceneReport(**data)

    def measure(
        self,
        cameras: Sequence[Camera],
        resolution: int = 128,
        num_points: int = 200_000,
        seed: int = 0,
    ) -> Measurement:
        """Silhouettes and surface points of the open object. Raises RenderFailure."""
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
                alpha = read_silhouettes(Path(out), len(cameras))
                points = np.load(Path(out) / "points.npy", allow_pickle=False)
            except (FrameError, OSError, ValueError) as error:
                raise self._bad_output(f"unreadable measurement: {error}") from error
        if points.shape != (num_points, 3) or not np.isfinite(points).all():
            raise self._bad_output(f"{points.shape} is no list of {num_points} points")
        return Measurement(coverage=alpha.mean(axis=(1, 2)), points=points)

    def geometry(self, num_points: int = 100_000, seed: int = 0) -> SurfaceGeometry:
        """Points on the surface of the open object, and its mesh. Raises RenderFailure."""
        with scratch_folder("geometry") as out:
            request = GeometryRequest(num_points=num_points, seed=seed, out=out)
            self._call(request, self._limits.measure_seconds)
            try:
                with np.load(Path(out) / "surface.npz", allow_pickle=False) as arrays:
                    surface = surface_from_arrays(arrays)
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise self._bad_output(f"unusable geometry: {error}") from error
        if len(surface.points) != num_points:
            raise self._bad_output(f"{len(surface.points)} points, not {num_points}")
        return surface

    def render(
        self,
        cameras: Sequence[Camera],
        config: RenderConfig,
        each: Callable[[int, ViewSet], None] | None = None,
    ) -> tuple[ViewSet, RenderReport]:
        """All views of the open object, and what they took. Raises RenderFailure.

        `prepare`, `geometry`, `probe`, `colour` and `handover` add up to the seconds that this
        takes; during the last the child is not at work: it is asked, and then views are still to be
        read. `each` is called with the number of every view as soon as it is filled in, while
        Blender renders the next. What it raises ends the child and goes to the caller.
        """
        began = time.monotonic()
        views = empty_views(cameras, config.resolution)
        reading = 0.0

        def collect(rendered: Rendered) -> None:
            nonlocal reading
            started = time.monotonic()
            read_view(Path(out), rendered.view, rendered.window, into=views)
            reading += time.monotonic() - started
            if each is not None:
                each(rendered.view, views)

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
                done = self._call(request, self._limits.render_seconds, collect)
            except FrameError as error:
                raise self._bad_output(str(error)) from error
            except BaseException:
                self.close()  # the child is in the middle of its work
                raise
        log = self._child.log() if self._child is not None else ""
        within = split_seconds(log, config.denoise) | {"read": reading}
        handover = time.monotonic() - began - sum(done["timings"].values())
        timings = done["timings"] | {"handover": handover} | within
        return views, RenderReport(samples=done["samples"], timings=timings)

    def _call(
        self,
        request: Request,
        seconds: float,
        collect: Callable[[Rendered], None] | None = None,
    ) -> dict[str, Any]:
        """Send a request and wait for its reply; the child is gone if this fails."""
        if self._child is None or not self._child.is_alive():
            if not isinstance(request, OpenRequest | DevicesRequest):
                raise self._gone()
            self._start()
        name = type(request).__name__.removesuffix("Request").lower()
        return self._ask(request, name, seconds, collect)

    def _gone(self) -> RenderFailure:
        """The child with the open object has ended, or there never was one."""
        if self._child is None:
            return RenderFailure(FailureKind.CRASH, "no object is open in a Blender child")
        return self._failure(*self._child.end_reason("a pause"))

    def _start(self) -> None:
        """A new child, ready for its first object."""
        self.close()
        began = time.monotonic()
        self._child = Child(self._limits.threads)
        self._objects = 1
        try:
            self._hello = self._expect(self._child, "start", _START_SECONDS).data
            if self._device != "cpu":
                with scratch_folder("warm") as out:
                    threads = self._limits.threads
                    request = WarmRequest(device=self._device, threads=threads, out=out)
                    self._ask(request, "warm-up", self._limits.warm_seconds)
        except RenderFailure as error:
            # No object was touched yet: this machine cannot run Blender, or not now.
            no_device = error.kind == FailureKind.NO_DEVICE
            kind = FailureKind.NO_DEVICE if no_device else FailureKind.NO_START
            raise RenderFailure(kind, str(error), error.log_tail) from None
        self._starting = time.monotonic() - began

    def _ask(
        self,
        request: Request,
        name: str,
        seconds: float,
        collect: Callable[[Rendered], None] | None = None,
    ) -> dict[str, Any]:
        assert self._child is not None
        self._child.send(request)
        reply = self._expect(self._child, name, seconds, collect)
        if reply.kind is not None:
            raise self._failure(reply.kind, reply.message, keep_child=reply.kind in _SETTLED)
        return reply.data

    def _expect(
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
            if line is not None:
                try:
                    answer = decode_answer(line)
                except (ValueError, KeyError, TypeError):
                    raise self._failure(*child.end_reason(name)) from None
                if isinstance(answer, Reply):
                    return answer
                if collect is not None:
                    collect(answer)
            if time.monotonic() > deadline:
                raise self._failure(FailureKind.TIMEOUT, f"{name} took more than {seconds:g} s")
            used = child.memory()
            if used > self._limits.memory_bytes:
                limit = self._limits.memory_bytes
                message = f"{name} used {used >> 20} MiB, the limit is {limit >> 20} MiB"
                raise self._failure(FailureKind.OUT_OF_MEMORY, message)

    def _is_worn(self) -> bool:
        """Whether the child has done its share: Blender leaks and slows down."""
        if self._child is None:
            return False
        swollen = self._child.memory() > self._limits.recycle_bytes
        return swollen or self._objects >= self._limits.objects_per_child

    def _bad_output(self, message: str) -> RenderFailure:
        return self._failure(FailureKind.BAD_OUTPUT, message)

    def _failure(self, kind: FailureKind, message: str, keep_child: bool = False) -> RenderFailure:
        """The failure with the log's end. Only a child that answered in order may live on."""
        log_tail = self._child.log_tail() if self._child is not None else ""
        self._has_scene = False
        if not keep_child:
            if _is_full(message + log_tail):
                kind = FailureKind.NO_SPACE
                message = f"no space in {tempfile.gettempdir()}: {message}"
            self.close()
        return RenderFailure(kind, message, log_tail)


def _is_full(said: str) -> bool:
    """Whether the scratch folder has no room, now or by what the child said."""
    if os.strerror(errno.ENOSPC) in said:
        return True
    return shutil.disk_usage(tempfile.gettempdir()).free < _FULL_BYTES


def _specs(cameras: Sequence[Camera]) -> list[CameraSpec]:
    return [
        CameraSpec(
            camera_to_world=camera.camera_to_world.astype(float).tolist(),
            intrinsics=camera.intrinsics.astype(float).tolist(),
        )
        for camera in cameras
    ]
