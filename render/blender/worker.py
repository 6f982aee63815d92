"""The Blender child: reads a request a line, does it, answers with a line.

Start it with `python -m render.blender.worker PARENT_PID IN_FD OUT_FD THREADS`; render.child does.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from core.failures import FailureKind, StageFailed
from render.blender.confine import confine
from render.job import (
    DevicesRequest,
    GeometryRequest,
    MeasureRequest,
    OpenRequest,
    Rendered,
    Reply,
    Request,
    CompileRequest,
    decode_request,
    encode,
)

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve requests until the parent closes the pipe or dies."""
    parent, in_fd, out_fd, threads = (int(word) for word in sys.argv[1:5])
    confined = confine()
    if confined:
        print(f"not confined: {confined}", flush=True)
    _die_with(parent)
    with open(in_fd) as requests, open(out_fd, "w") as replies:
        with _few_cores(threads):
            import bpy
        version = bpy.app.version_string
        _answer(replies, Reply(data={"blender": version, "not_confined": confined}))
        for line in requests:
            request = decode_request(line)
            _answer(replies, _serve(request, lambda rendered: _answer(replies, rendered)))
    return 0


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent ended before this child was up")


@contextmanager
def _few_cores(count: int) -> Iterator[None]:
    """Use that many cores only, until the end of the block.

    Blender's scheduler (TBB) takes as many threads as it finds cores when it is loaded. Those for
    which `render.threads` leaves no work do not sleep: one thread of two kept both cores busy.
    """
    if sys.platform != "linux":
        yield
        return
    cores = os.sched_getaffinity(0)
    # Not the same ones in all children of a machine.
    start = os.getpid() % len(cores)
    turned = sorted(cores)[start:] + sorted(cores)[:start]
    os.sched_setaffinity(0, turned[:count])
    try:
        yield
    finally:
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def _answer(replies: TextIO, answer: Rendered | Reply) -> None:
    replies.write(encode(answer))
    replies.flush()


def _serve(request: Request, tell: Callable[[Rendered], None]) -> Reply:
    try:
        return Reply(data=_do(request, tell))
    except StageFailed as error:
        return Reply(kind=error.kind, message=error.message)
    except MemoryError:
        message = "no memory left in the Blender child"
        return Reply(kind=FailureKind.OUT_OF_MEMORY, message=message)
    except Exception as error:  # noqa: BLE001 - the parent must hear of it, and replaces this child
        traceback.print_exc()
        out_of_memory = "out of memory" in str(error).lower()
        kind = FailureKind.OUT_OF_MEMORY if out_of_memory else FailureKind.CRASH
        return Reply(kind=kind, message=f"{type(error).__name__}: {' '.join(str(error).split())}")


def _do(request: Request, tell: Callable[[Rendered], None]) -> dict[str, object]:
    from render.blender import devices, passes, scene, surface

    if isinstance(request, DevicesRequest):
        return devices.list_gpus()
    if isinstance(request, OpenRequest):
        return scene.open_scene(request)
    if isinstance(request, MeasureRequest):
        import numpy as np

        passes.render_silhouettes(request)
        points = surface.sample_surface(request.num_points, request.seed)
        np.save(Path(request.out) / "points.npy", points)
        return {}
    if isinstance(request, GeometryRequest):
        surface.write_surface(request)
        return {}
    if isinstance(request, CompileRequest):
        passes.compile_kernels(request)
        return {}
    return passes.render_views(request, tell)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # bpy 4.5 hangs in the interpreter's own clean-up.
    os._exit(status)
