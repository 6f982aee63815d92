"""Joining a Ray cluster, or starting one for the length of a command."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.errors import BadInput, WorkFailed, first_line

__all__ = ["ray_session", "start_ray"]

_REACH_SECONDS = 10.0


@contextmanager
def ray_session(address: str) -> Iterator[None]:
    """A connection to Ray; one that was started here ends with the block. Raises BadInput."""
    import ray

    start_ray(address)
    try:
        yield
    finally:
        ray.shutdown()


def start_ray(address: str) -> None:
    """Connect to `auto` or HOST:PORT, or start Ray here (`local`). Raises BadInput."""
    import ray

    # Newer Ray asks for a token even on one machine; a cluster sets its own mode.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options["include_dashboard"] = False
    _require_reachable(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BadInput(f"--address {address}: cannot join Ray: {first_line(error)}") from None
    except Exception as error:
        # Ray has no class of its own for nodes that do not come up in time.
        if "startup" not in str(error):
            raise
        raise WorkFailed(f"--address {address}: cannot start Ray: {first_line(error)}") from None


def _require_reachable(address: str) -> None:
    """Ask once whether anybody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        raise BadInput(f"--address {address}: cannot join Ray: {error}") from None
