"""Calls of the command line, in the process of the test or in a new one."""

import contextlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.support.paths import REPOSITORY

WIDTH = {"COLUMNS": "200"}
"""Terminal width in characters at which no line of a table or a help text is wrapped."""


@dataclass(frozen=True)
class Answer:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the parsed output; fail if the command failed."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def run_lrm(*words: Any, **environment: str) -> Answer:
    """Run `lrm` in this process, then restore the environment, signal handlers and logging.

    The output of child processes and of libraries in other languages is captured as well. Paths
    must be absolute. An internal error of `lrm` is raised here.
    """
    from pipelines.cli import main

    out, err = _stream(), _stream()
    with (
        _captured_descriptor(1) as out_file,
        _captured_descriptor(2) as err_file,
        _restored_environment(WIDTH | environment),
        _restored_signal_handlers(),
        _process_logging(),
        _process_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        if environment:
            _clear_store_cache()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # raised by argparse for --help and for wrong arguments
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            if environment:
                _clear_store_cache()
        printed = _text(out) + _read(out_file), _text(err) + _read(err_file)
    _reject_bugs(printed[1])
    return Answer(code, *printed)


def _reject_bugs(err: str) -> None:
    """Raise the traceback of an internal error, so that a test never takes one for a failure."""
    if report := re.search(r"internal error: .* with the file (\S+)", err):
        file = Path(report[1])
        trace = file.read_text()
        file.unlink()
        raise AssertionError(trace)
    assert "internal error" not in err, err


def spawn_lrm(*words: Any, python: str | Path = sys.executable, **environment: str) -> Answer:
    """Run `lrm` in a new process, from a folder outside the repository."""
    process = subprocess.run(
        [python, "-m", "pipelines.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **WIDTH, **environment},
        cwd="/",
    )
    _reject_bugs(process.stderr)
    return Answer(process.returncode, process.stdout, process.stderr)


def _stream() -> io.TextIOWrapper:
    """Return a text stream with the encoding of a pipe."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


@contextlib.contextmanager
def _captured_descriptor(number: int) -> Iterator[IO[bytes]]:
    """Redirect a file descriptor of this process to a temporary file."""
    before = os.dup(number)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), number)
        try:
            yield file
        finally:
            os.dup2(before, number)
            os.close(before)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


@contextlib.contextmanager
def _process_warnings() -> Iterator[None]:
    """Write warnings to standard error as a new process does, not to pytest's collection."""
    silent = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in silent:
            warnings.simplefilter("ignore", category)
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        yield


def _show_warning(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


@contextlib.contextmanager
def _restored_environment(changes: dict[str, str]) -> Iterator[None]:
    """Change environment variables; at the end undo these changes and those of the block."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _restored_signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that a command, or Ray inside it, replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _process_logging() -> Iterator[None]:
    """Remove pytest's log handlers, so that warnings go to standard error as in a new process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _clear_store_cache() -> None:
    """Clear cached connections to object stores, which keep the environment of their creation."""
    import fsspec

    if "s3fs" in sys.modules:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
