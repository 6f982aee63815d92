"""The confined child: calls one function after the other, with limits on time and memory.

core.confined.confined_process starts it with `python -m core.confined.serve PARENT_PID`.
"""

import importlib
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from core.confined.confine import confine, end_with_parent, take_channel
from core.confined.wire import receive, send
from core.failures import FailureKind, StageFailed

__all__ = ["main"]

_GRACE_SECONDS = 10.0
"""Time after which the kernel ends this child if its parent, perhaps stopped, has not."""
_LOG_BYTES = 4096
_NO_LIMIT = 1 << 62
"""The parent is trusted, so the size of its requests is not limited."""


def main() -> int:
    """Serve requests until the parent closes the socket or ends."""
    not_confined = confine(max_file_bytes=0)
    end_with_parent(int(sys.argv[1]))
    channel = take_channel()
    sys.addaudithook(_refuse_programs)
    send(channel, {"not_confined": not_confined})
    while True:
        try:
            request, data = receive(channel, lambda: None, _NO_LIMIT, _NO_LIMIT)
        except EOFError:
            return 0
        answer, result = _answer(request, data)
        send(channel, answer, result)


def _refuse_programs(event: str, _: object) -> None:
    """Refuse to start a program, as Pillow and other libraries do for formats of old."""
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
        raise PermissionError("a confined process starts no programs")


def _answer(request: dict[str, Any], data: bytearray) -> tuple[dict[str, Any], bytes | memoryview]:
    """Return the answer to a request and its bytes: the function's, or the kind of its failure."""
    try:
        module, _, name = request["function"].partition(":")
        function = getattr(importlib.import_module(module), name)
        arguments = request["arguments"] + ([memoryview(data)] if request["has_data"] else [])
        _limit(request["seconds"], request["max_bytes"])
        value, result = function(*arguments)
        return {"value": value}, result
    except StageFailed as error:
        return {"kind": error.kind, "message": error.message}, b""
    except MemoryError:
        return {"kind": FailureKind.OUT_OF_MEMORY, "message": "an allocation failed"}, b""
    except OSError as error:
        return {"kind": FailureKind.STORAGE, "message": str(error)}, b""
    except Exception as error:  # noqa: BLE001 - reported to the parent with its traceback
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        log = traceback.format_exc()[-_LOG_BYTES:]
        return {"kind": FailureKind.INTERNAL_ERROR, "message": message, "log": log}, b""
    finally:
        _limit(0, None)


def _limit(seconds: float, max_bytes: int | None) -> None:
    """Set limits that hold even while the parent is stopped; 0 and None remove them.

    The parent measures time and resident memory, and states which limit was exceeded. The kernel's
    limits are higher: a library whose allocation fails may take its input for damaged.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE_SECONDS if seconds else 0)
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = hard if max_bytes is None else _address_space() + 2 * max_bytes
        if hard == resource.RLIM_INFINITY or limit <= hard:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _address_space() -> int:
    """Return the size of this process's address space in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
