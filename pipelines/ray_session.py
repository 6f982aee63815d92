"""Connections to a Ray cluster, or to a local Ray that lives as long as the command."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.errors import BadInput, WorkFailed, first_line

__all__ = ["ray_session", "start_ray"]

_REACH_SECONDS = 10.0
"""Time limit of the connection test."""


@contextmanager
def ray_session(address: str) -> Iterator[None]:
    """Connect to Ray for the block; a local Ray that was started here ends with it.

    Raises what `start_ray` raises.
    """
    import ray

    start_ray(address)
    try:
        yield
    finally:
        ray.shutdown()


def start_ray(address: str) -> None:
    """Connect to `auto` or HOST:PORT, or start a local Ray (`local`).

    Raises BadInput if the cluster cannot be reached, and WorkFailed if a local Ray does not start.
    """
    import ray

    # Recent versions of Ray require a token even on one machine; a cluster sets its own mode.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options["include_dashboard"] = False
    _require_reachable(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BadInput(f"--address {address}: cannot connect to Ray: {first_line(error)}") from None
    except Exception as error:
        # Ray raises a plain Exception if its nodes do not start in time.
        if "startup" not in str(error):
            raise
        raise WorkFailed(f"--address {address}: cannot start Ray: {first_line(error)}") from None


def _require_reachable(address: str) -> None:
    """Raise BadInput if nothing listens at HOST:PORT; Ray itself would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        raise BadInput(f"--address {address}: cannot connect to Ray: {error}") from None
