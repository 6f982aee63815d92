"""The end of a command: its last line on standard error, and the user's hook."""

import contextlib
import sys
import threading

from core.monitoring.notify import Outcome, run_hook

__all__ = ["CommandEnd"]


class CommandEnd:
    """Reports the end of a command once; a thread may do it for a main thread that is busy."""

    def __init__(self) -> None:
        self.name = "lrm"
        self.hook: str | None = None
        """The shell command of `--notify`."""
        self.subject = ""
        """What ends, for the hook."""
        self.continues = True
        """Whether the same command continues after a stop."""
        self.is_reported = threading.Event()
        """Set when the last line is printed."""
        self._lock = threading.Lock()

    def report(self, outcome: Outcome, line: str = "", *, message: str = "") -> None:
        """Print the last line, if there is one, and run the hook; a second call does nothing.

        The hook receives the line, or `message` if the line is empty.
        """
        with self._lock:
            if self.is_reported.is_set():
                return
            if line:
                print(f"{self.name}: {line}", file=sys.stderr, flush=True)
            self.is_reported.set()
            # A signal during the hook ends the hook.
            with contextlib.suppress(KeyboardInterrupt):
                run_hook(self.hook, self.subject or self.name, outcome, line or message)

    def report_stop(self, code: int) -> None:
        """Report the end by a signal, by the exit code of it."""
        word = "interrupted" if code == 130 else "stopped"
        self.report("stopped", f"{word}; the same command continues" if self.continues else word)
