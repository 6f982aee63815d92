"""The Blender child: reads a request a line, does it, answers with a line.

Start it with `python -m render.blender.worker PARENT_PID IN_FD OUT_FD`; render.process does.
"""

import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TextIO

from render.job import (
    FailureKind,
    MeasureRequest,
    OpenRequest,
    Reply,
    Request,
    decode_request,
    encode,
)

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve requests until the parent closes the pipe or dies."""
    parent, in_fd, out_fd = (int(word) for word in sys.argv[1:4])
    _die_with(parent)
    with open(in_fd) as requests, open(out_fd, "w") as replies:
        import bpy

        _answer(replies, Reply(data={"blender": bpy.app.version_string}))
        for line in requests:
            _answer(replies, _serve(decode_request(line)))
    return 0


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent ended before this child was up")


def _answer(replies: TextIO, reply: Reply) -> None:
    replies.write(encode(reply))
    replies.flush()


def _serve(request: Request) -> Reply:
    from render.blender.scene import SceneFailure

    try:
        return Reply(data=_do(request))
    except SceneFailure as error:
        return Reply(kind=error.kind, message=str(error))
    except MemoryError:
        return Reply(kind="out_of_memory", message="no memory left in the Blender child")
    except Exception as error:  # noqa: BLE001 - the parent must hear of it, and replaces this child
        traceback.print_exc()
        kind: FailureKind = "out_of_memory" if "out of memory" in str(error).lower() else "crash"
        return Reply(kind=kind, message=f"{type(error).__name__}: {' '.join(str(error).split())}")


def _do(request: Request) -> dict[str, object]:
    from render.blender import measure, passes, scene

    if isinstance(request, OpenRequest):
        return scene.open_scene(request)
    if isinstance(request, MeasureRequest):
        import numpy as np

        passes.render_silhouettes(request)
        points = measure.sample_surface(request.num_points, request.seed)
        np.save(Path(request.out) / "points.npy", points)
        return {}
    return passes.render_views(request)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # bpy 4.5 hangs in the interpreter's own clean-up.
    os._exit(status)
