"""The main loop of the Blender child: one request per line in, one reply per line out.

render.child starts it with `python -m render.blender.worker PARENT_PID THREADS`.
Its standard input is a socket, on which it also replies.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from core.confined.confine import confine, end_with_parent, take_channel
from core.failures import FailureKind, StageFailed
from render.job import (
    CompileRequest,
    DevicesRequest,
    GeometryRequest,
    MeasureRequest,
    OpenRequest,
    Rendered,
    Reply,
    Request,
    decode_request,
    encode,
)

if TYPE_CHECKING:
    from render.blender.scene import OpenScene

__all__ = ["main"]


def main() -> int:
    """Serve requests until the parent closes the pipe or ends."""
    parent, threads = (int(word) for word in sys.argv[1:3])
    not_confined = confine()
    if not_confined:
        print(f"not confined: {not_confined}", flush=True)
    end_with_parent(parent)
    channel = take_channel()
    with channel.makefile("r") as requests, channel.makefile("w") as replies:
        with _limited_cores(threads):
            import bpy
        version = bpy.app.version_string
        _answer(replies, Reply(data={"blender": version, "not_confined": not_confined}))
        session = _Session(lambda rendered: _answer(replies, rendered))
        for line in requests:
            _answer(replies, _serve(session, decode_request(line)))
    return 0


@contextmanager
def _limited_cores(count: int) -> Iterator[None]:
    """Restrict this process to `count` cores until the end of the block.

    When Blender's scheduler (TBB) is loaded, it starts a thread per available core. Threads beyond
    the scene's `render.threads` (bpy) have no work but do not sleep: one thread of two kept both
    cores busy.
    """
    if sys.platform != "linux":
        yield
        return
    cores = os.sched_getaffinity(0)
    # The children of a machine start at different cores.
    start = os.getpid() % len(cores)
    rotated = sorted(cores)[start:] + sorted(cores)[:start]
    os.sched_setaffinity(0, rotated[:count])
    try:
        yield
    finally:
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def _answer(replies: TextIO, answer: Rendered | Reply) -> None:
    replies.write(encode(answer))
    replies.flush()


def _serve(session: "_Session", request: Request) -> Reply:
    try:
        return Reply(data=session.execute(request))
    except StageFailed as error:
        return Reply(kind=error.kind, message=error.message)
    except MemoryError:
        message = "the Blender child has no memory left"
        return Reply(kind=FailureKind.OUT_OF_MEMORY, message=message)
    except Exception as error:  # noqa: BLE001 - reported to the parent, which replaces this child
        traceback.print_exc()
        out_of_memory = "out of memory" in str(error).lower()
        kind = FailureKind.OUT_OF_MEMORY if out_of_memory else FailureKind.CRASH
        return Reply(kind=kind, message=f"{type(error).__name__}: {' '.join(str(error).split())}")


class _Session:
    """The object that is open in this process, and the execution of requests about it."""

    def __init__(self, on_view: Callable[[Rendered], None]) -> None:
        self._on_view = on_view
        self._scene: OpenScene | None = None

    def execute(self, request: Request) -> dict[str, object]:
        """Execute a request and return the data of its reply. Raises StageFailed."""
        from render.blender import base_colours, devices, passes, scene, surface_points

        if isinstance(request, DevicesRequest):
            return devices.list_gpus()
        if isinstance(request, CompileRequest):
            passes.compile_kernels(request)
            return {}
        if isinstance(request, OpenRequest):
            self._scene = None
            self._scene = scene.open_scene(request)
            return self._scene.report
        assert self._scene is not None
        if isinstance(request, MeasureRequest):
            import numpy as np

            passes.render_silhouettes(self._scene, request)
            body = self._scene.body
            points = surface_points.sample_surface(body, request.num_points, request.seed)
            np.savez(Path(request.out) / "points.npz", points=points)
            return {}
        if isinstance(request, GeometryRequest):
            surface_points.write_surface(self._scene.body, request)
            return {}
        report = passes.render_views(self._scene.surface, request, self._on_view)
        # Images have been scaled down by now.
        report["timings"]["base_colours"] = base_colours.write_base_colours(self._scene, request)
        return report


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # bpy 4.5 hangs when the interpreter shuts down.
    os._exit(status)
