"""Connections to a Ray cluster, or to a local Ray that lives as long as the command."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import BadInput, WorkFailed, first_line
from core.paths.temporary_folder import MAX_SOCKET_NAME, private_short_folder, write_problem

__all__ = ["MAX_RAY_FOLDER", "default_ray_folder", "ray_session"]

_REACH_SECONDS = 10.0
"""Time limit of the connection test."""
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest name of a socket that Ray creates in its folder; process ids have 7 digits."""
MAX_RAY_FOLDER = MAX_SOCKET_NAME - len(_SOCKET)
"""Bytes of the longest folder that Ray can use for temporary files."""


@contextmanager
def ray_session(address: str) -> Iterator[None]:
    """Connect to `auto` or HOST:PORT for the block, or start a Ray that ends with it (`local`).

    Raises BadInput if the cluster cannot be reached, and WorkFailed if a local Ray does not start.
    """
    import ray

    with _ray_folder() if address == "local" else nullcontext() as folder:
        _start(address, folder)
        try:
            yield
        finally:
            with _kept_handler():
                ray.shutdown()


def default_ray_folder() -> Path:
    """Return the folder in which Ray creates its folder `ray` if it is not given another one."""
    variables = map(os.environ.get, ("RAY_TMPDIR", "TMPDIR"))
    return Path(next(filter(None, variables), "/tmp")).absolute()  # noqa: S108 - Ray's default


@contextmanager
def _ray_folder() -> Iterator[str]:
    """Yield the folder for the files and sockets of a local Ray.

    It is a private one if the name of the default one is too long, as those of batch systems are.
    """
    folder = default_ray_folder()
    if len(os.fsencode(folder)) > MAX_RAY_FOLDER:
        with private_short_folder(folder) as private:
            # Ray lets everybody write to the folder that it is given.
            yield f"{private}/ray"
        return
    if problem := write_problem(folder):
        raise BadInput(f"{folder}: Ray cannot write its files here: {problem}; set TMPDIR")
    yield str(folder / "ray")


def _start(address: str, folder: str | None) -> None:
    """Connect to Ray, or start it with its files in `folder`. Raises BadInput or WorkFailed."""
    import ray

    # Recent versions of Ray require a token even on one machine; a cluster sets its own mode.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options |= {"include_dashboard": False, "_temp_dir": folder}
    _require_reachable(address)
    _messages_to_stderr()
    try:
        with _kept_handler():
            ray.init(address=address, **options)
    except Exception as error:
        is_refused = isinstance(error, ConnectionError | ValueError | RuntimeError)
        if is_refused and address != "local":
            raise BadInput(
                f"--address {address}: cannot connect to Ray: {first_line(error)}"
            ) from None
        # Ray raises a plain Exception if its nodes do not start in time.
        if not is_refused and not isinstance(error, OSError) and "startup" not in str(error):
            raise
        raise WorkFailed(f"--address {address}: cannot start Ray: {first_line(error)}") from None


def _messages_to_stderr() -> None:
    """Make Ray print its messages, such as that a worker was lost, to standard error.

    It would print them to standard output, in the middle of a command's JSON.
    """
    from ray._private import worker

    if not isinstance(worker.print_to_stdstream, partial):
        worker.print_to_stdstream = partial(_to_stderr, worker.print_to_stdstream)


def _to_stderr(show: Callable[..., None], data: Mapping[str, Any], ignore_prefix: bool) -> None:
    show({**data, "is_err": True}, ignore_prefix)


@contextmanager
def _kept_handler() -> Iterator[None]:
    """Restore the handler of SIGTERM after the block.

    At its start Ray sets one that exits with code 15, and at its end the system's default, of which
    Python is not informed.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _require_reachable(address: str) -> None:
    """Raise BadInput if nothing listens at HOST:PORT; Ray itself would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        raise BadInput(f"--address {address}: cannot connect to Ray: {error}") from None
