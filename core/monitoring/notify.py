"""The hook of a long command: a shell command of the user that is run when it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Literal

from core.errors import BadInput, Stopped, first_line
from core.signal_watch import before_forced_end

__all__ = ["Outcome", "notify_at_end", "outcome_of", "run_hook"]

HOOK_SECONDS = 60.0
"""Time limit of a hook in seconds. Then it is killed, with the processes that it started."""

Outcome = Literal["done", "failed", "stopped", "refused"]
"""How a command ended: `refused` is bad usage or input, `stopped` a signal or a stop request."""


@contextlib.contextmanager
def notify_at_end(command: str | None, subject: str) -> Iterator[None]:
    """Run the hook `command` once when the block ends, however it ends; None runs nothing.

    `subject` says what ended, such as `lrm build s3://bucket/lrm`. The hook changes neither the
    result of the block nor its error. It also runs before a second signal ends the process.
    """
    lock, ended = threading.Lock(), threading.Event()

    def end(outcome: Outcome, message: str) -> None:
        with lock:
            if not ended.is_set():
                ended.set()
                # A signal during the hook ends the hook.
                with contextlib.suppress(KeyboardInterrupt):
                    run_hook(command, subject, outcome, message)

    with before_forced_end(lambda _: end("stopped", "ended by a signal")):
        try:
            yield
        except BaseException as error:
            end(outcome_of(error), first_line(error))
            raise
        end("done", "")


def outcome_of(error: BaseException) -> Outcome:
    """Return how work ended that raised this error."""
    if isinstance(error, BadInput):
        return "refused"
    return "stopped" if isinstance(error, Stopped | KeyboardInterrupt) else "failed"


def run_hook(
    command: str | None,
    subject: str,
    outcome: Outcome,
    message: str,
    seconds: float = HOOK_SECONDS,
) -> None:
    """Run a shell command of the user that reads `LRM_OUTCOME`, `LRM_MESSAGE` and `LRM_SUBJECT`.

    It runs in a process group of its own. A failure, or the end of its time limit, is a warning on
    standard error. None runs nothing.
    """
    if command is None:
        return
    values = {"LRM_OUTCOME": outcome, "LRM_MESSAGE": message, "LRM_SUBJECT": subject}
    # A variable cannot hold NUL bytes.
    values = {name: value.replace("\0", "") for name, value in values.items()}
    try:
        # It writes to standard error: standard output may be JSON for another program.
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            env=os.environ | values,
            stdin=subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        _warn(f"does not start: {error}")
        return
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        _warn(f"ran for more than {seconds:g} seconds and was killed")
    else:
        if code:
            _warn(f"ended with exit code {code}")
    finally:
        if process.returncode is None:  # also if a signal interrupts the wait
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _warn(problem: str) -> None:
    print(f"warning: the notify command {problem}", file=sys.stderr, flush=True)
