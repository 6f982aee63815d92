"""The command line as a test calls it: in this process, or as a process of its own."""

import contextlib
import io
import json
import logging
import os
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
"""Wide enough that no line of a table or of a help text is broken."""


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


def run_lrm(*words: Any, **environment: str) -> Answer:
    """Run `lrm` in this process, which afterwards is as it was before.

    What libraries in other languages and child processes print counts as well. Paths must be
    absolute. An exception that `lrm` does not handle is raised here.
    """
    from pipelines.cli import main

    out, err = _stream(), _stream()
    with (
        _descriptor(1) as out_below,
        _descriptor(2) as err_below,
        _kept_environment(WIDTH | environment),
        _kept_signals(),
        _own_logging(),
        _own_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        if environment:
            _forget_stores()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # argparse ends by it: --help, or a mistake in the words.
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            if environment:
                _forget_stores()
        printed = _text(out) + _read(out_below), _text(err) + _read(err_below)
    return Answer(code, *printed)


def spawn_lrm(*words: Any, python: str | Path = sys.executable, **environment: str) -> Answer:
    """Run `lrm` as a process of its own, from another folder than the repository."""
    done = subprocess.run(
        [python, "-m", "pipelines.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **WIDTH, **environment},
        cwd="/",
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def _stream() -> io.TextIOWrapper:
    """A text stream that encodes as a pipe's does."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


@contextlib.contextmanager
def _descriptor(number: int) -> Iterator[IO[bytes]]:
    """Send a file descriptor of this process to a temporary file."""
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
def _own_warnings() -> Iterator[None]:
    """Without pytest's collection of them: they go to standard error, as in a process."""
    silent = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in silent:
            warnings.simplefilter("ignore", category)
        warnings.showwarning = _show_warning
        yield


def _show_warning(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


@contextlib.contextmanager
def _kept_environment(changes: dict[str, str]) -> Iterator[None]:
    """Change environment variables; what the block sets or removes is undone as well."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    """Restore the handlers that a command, or Ray inside it, replaces."""
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
def _own_logging() -> Iterator[None]:
    """Without pytest's handlers: warnings go to standard error, as in a process of its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _forget_stores() -> None:
    """Connections to object stores keep the environment in which they were made."""
    import fsspec

    if "s3fs" in sys.modules:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
