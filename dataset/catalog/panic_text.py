"""The texts that libraries in Rust print when they panic, besides the error that they raise."""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator

__all__ = ["without_panic_text"]

_PANIC = re.compile(rb"\n?thread '[^\n]* panicked at .*", re.DOTALL)
_lock = threading.Lock()
"""One block at a time replaces standard error."""


@contextlib.contextmanager
def without_panic_text() -> Iterator[None]:
    """Remove the text of a panic from what is written to standard error during a block.

    The rest is written after the block, so keep it short. A full disk makes Delta Lake panic in a
    thread of its own: the text, of many lines, would come before the one line of the error.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_lock)
        try:
            kept = os.dup(2)
        except OSError:  # there is no standard error, or no free descriptor
            kept = None
        if kept is not None:
            stack.callback(os.close, kept)
            written = stack.enter_context(open(os.memfd_create("stderr"), "w+b", buffering=0))
            _flush()
            os.dup2(written.fileno(), 2)
            stack.callback(_restore, kept, written.fileno())
        yield


def _restore(kept: int, written: int) -> None:
    """Make `kept` standard error again, and write there what was written, without panics."""
    _flush()
    os.dup2(kept, 2)
    text = _PANIC.sub(b"", os.pread(written, os.fstat(written).st_size, 0))
    with contextlib.suppress(OSError):
        while text:
            text = text[os.write(2, text) :]


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
