"""A supervised Blender child: limits on time and memory, a log, failure kinds, replacement.

Blender crashes, hangs and leaks. A failure here costs the object; the next one gets a new child.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import psutil
from jaxtyping import Float, Float32

from dataset.cameras import Camera
from dataset.views import ViewSet
from render.frames import FrameError, read_silhouettes, read_views
from render.job import (
    CameraSpec,
    FailureKind,
    MeasureRequest,
    OpenRequest,
    RenderRequest,
    Reply,
    Request,
    decode_reply,
    encode,
)
from render.scratch import scratch_folder
from render.settings import BlenderLimits, RenderConfig

__all__ = ["BlenderProcess", "Measurement", "RenderFailure", "SceneReport"]

_START_SECONDS = 180.0
_POLL_SECONDS = 0.2
_LOG_TAIL = 4096
_SETTLED: frozenset[FailureKind] = frozenset(
    ("refused", "unsupported_extension", "import_error", "empty", "too_large")
)
"""Failures that a child reports in good health: it may take the next object."""
_PROJECT = Path(__file__).parent.parent
_PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_CACHE_PATH")
"""What a child inherits of the environment: no credentials."""


class RenderFailure(Exception):
    """An object could not be rendered; `kind` says why, `log_tail` what Blender said last."""

    def __init__(self, kind: FailureKind, message: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.log_tail = log_tail


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
    """Seconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """What the rig sees of an object, and where its surface is."""

    coverage: Float[np.ndarray, "v"]
    """Share of the frame that the object fills, per view."""
    points: Float32[np.ndarray, "n 3"]
    """Spread evenly over the surface, in the normalised frame."""


class BlenderProcess:
    """A Blender child that holds one open object at a time. Not for several threads.

    The kernel ends the child with the thread that started it: the one of the first `open`.
    """

    def __init__(self, limits: BlenderLimits) -> None:
        self._limits = limits
        self._child: _Child | None = None
        self._objects = 0
        self.has_scene = False
        """Whether the object opened last is still there."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is no child."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        """End the child and everything it started."""
        if self._child is not None:
            self._child.kill()
        self._child = None
        self.has_scene = False

    def open(self, glb: Path, normalise: str) -> SceneReport:
        """Load an object and normalise it. Raises RenderFailure."""
        if self._is_worn():
            self.close()
        self.has_scene = False
        self._objects += 1
        if self._child is not None:
            self._child.forget_log()
        request = OpenRequest(
            glb=str(glb.absolute()),
            normalise=normalise,
            max_nodes=self._limits.max_nodes,
            max_triangles=self._limits.max_triangles,
            max_texture_pixels=self._limits.max_texture_pixels,
        )
        data = self._call(request, self._limits.import_seconds)
        self.has_scene = True
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
                raise self._failure("bad_output", f"unreadable measurement: {error}") from error
        if points.shape != (num_points, 3) or not np.isfinite(points).all():
            raise self._failure("bad_output", f"{points.shape} is no list of {num_points} points")
        return Measurement(coverage=alpha.mean(axis=(1, 2)), points=points)

    def render(
        self, cameras: Sequence[Camera], config: RenderConfig
    ) -> tuple[ViewSet, dict[str, float]]:
        """All views of the open object, and the seconds of each part. Raises RenderFailure."""
        with scratch_folder("render") as out:
            request = RenderRequest(
                cameras=_specs(cameras),
                resolution=config.resolution,
                samples=config.samples,
                denoise=config.denoise,
                device=config.device,
                threads=self._limits.threads,
                texture_size=config.texture_size,
                world_strength=config.world_strength,
                sun_strength=config.sun_strength,
                seed=config.seed,
                out=out,
            )
            timings = self._call(request, self._limits.render_seconds)["timings"]
            started = time.monotonic()
            try:
                views = read_views(Path(out), cameras)
            except FrameError as error:
                raise self._failure("bad_output", str(error)) from error
        return views, timings | {"read": round(time.monotonic() - started, 3)}

    def _call(self, request: Request, seconds: float) -> dict[str, Any]:
        """Send a request and wait for its reply; the child is gone if this fails."""
        if self._child is None or not self._child.is_alive():
            if not isinstance(request, OpenRequest):
                raise RenderFailure("crash", "the Blender child with the open object is gone")
            self.close()
            self._child = _Child()
            self._objects = 1
            try:
                self._expect(self._child, "start", _START_SECONDS)
            except RenderFailure as error:
                # No object was touched yet: this machine cannot run Blender, or not now.
                raise RenderFailure("no_start", str(error), error.log_tail) from None
        name = type(request).__name__.removesuffix("Request").lower()
        self._child.send(request)
        reply = self._expect(self._child, name, seconds)
        if reply.kind is not None:
            raise self._failure(reply.kind, reply.message, keep_child=reply.kind in _SETTLED)
        return reply.data

    def _expect(self, child: "_Child", name: str, seconds: float) -> Reply:
        deadline = time.monotonic() + seconds
        while True:
            line = child.poll(_POLL_SECONDS)
            if line is not None:
                try:
                    return decode_reply(line)
                except (ValueError, KeyError, TypeError):
                    raise self._failure("crash", child.end_reason(name)) from None
            if time.monotonic() > deadline:
                raise self._failure("timeout", f"{name} took more than {seconds:g} s")
            used = child.memory()
            if used > self._limits.memory_bytes:
                limit = self._limits.memory_bytes
                raise self._failure(
                    "out_of_memory", f"{name} used {used >> 20} MiB, the limit is {limit >> 20} MiB"
                )

    def _is_worn(self) -> bool:
        """Whether the child has done its share: Blender leaks and slows down."""
        if self._child is None:
            return False
        swollen = self._child.memory() > self._limits.recycle_bytes
        return swollen or self._objects >= self._limits.objects_per_child

    def _failure(self, kind: FailureKind, message: str, keep_child: bool = False) -> RenderFailure:
        """The failure with the log's end. Only a child that answered in order may live on."""
        log_tail = self._child.log_tail() if self._child is not None else ""
        self.has_scene = False
        if not keep_child:
            self.close()
        return RenderFailure(kind, message, log_tail)


class _Child:
    """The operating system's side: a process in a group of its own, two pipes and a log."""

    def __init__(self) -> None:
        self._scratch = scratch_folder("blender")
        self._log = Path(self._scratch.name) / "log.txt"
        child_in, to_child = os.pipe()
        from_child, child_out = os.pipe()
        command = [sys.executable, "-m", "render.blender.worker"]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [*command, str(os.getpid()), str(child_in), str(child_out)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(child_in, child_out),
                env=self._environment(),
                cwd=self._scratch.name,
                process_group=0,
            )
        os.close(child_in)
        os.close(child_out)
        self._requests: IO[str] = open(to_child, "w")  # noqa: SIM115 - lives as long as the child
        self._replies = from_child
        self._buffer = b""
        self._ended = False

    def _environment(self) -> dict[str, str]:
        scratch = self._scratch.name
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        own = {"HOME": scratch, "TMPDIR": scratch, "PYTHONPATH": str(_PROJECT)}
        return kept | own | {"BLENDER_USER_RESOURCES": scratch, "PYTHONNOUSERSITE": "1"}

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return not self._ended and self._process.poll() is None

    def send(self, request: Request) -> None:
        """Send a request; a child that is gone shows at the next poll."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(encode(request))
            self._requests.flush()

    def poll(self, seconds: float) -> str | None:
        """The next line of the child, None if there is none yet, an empty one if it ended."""
        ready, _, _ = select.select([self._replies], [], [], seconds)
        if ready:
            block = os.read(self._replies, 1 << 16)
            if not block:
                self._ended = True
                return ""
            self._buffer += block
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        return line.decode()

    def memory(self) -> int:
        """Resident bytes of the child and all it started."""
        total = 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            for one in [process, *process.children(recursive=True)]:
                total += one.memory_info().rss
        return total

    def end_reason(self, name: str) -> str:
        """How the child ended."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return f"Blender broke off its answer during {name}"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"Blender ended with {how} during {name}"

    def log_tail(self) -> str:
        """The end of what Blender printed."""
        try:
            with open(self._log, "rb") as log:
                log.seek(max(0, self._log.stat().st_size - _LOG_TAIL))
                return log.read(_LOG_TAIL).decode(errors="replace")
        except OSError:
            return ""

    def forget_log(self) -> None:
        """Begin a new log: what was printed about one object does not explain the next."""
        with contextlib.suppress(OSError):
            os.truncate(self._log, 0)

    def kill(self) -> None:
        """End the whole process group, and clean up."""
        self._ended = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            self._requests.close()
        os.close(self._replies)
        self._scratch.cleanup()


def _specs(cameras: Sequence[Camera]) -> list[CameraSpec]:
    return [
        CameraSpec(
            camera_to_world=camera.camera_to_world.astype(float).tolist(),
            intrinsics=camera.intrinsics.astype(float).tolist(),
        )
        for camera in cameras
    ]
