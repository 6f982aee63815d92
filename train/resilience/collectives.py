"""Collective calls on Python objects: exchange between ranks, and decisions of rank 0."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch.distributed as dist

from core.errors import LrmError, WorkFailed, first_line

__all__ = ["broken_connections", "gather", "on_rank_0"]

T = TypeVar("T")
_log = logging.getLogger(__name__)

_CONNECTION = re.compile("gloo|NCCL|Connection (closed|reset|refused)")
"""Messages of torch about other ranks that are plain RuntimeErrors."""


@contextlib.contextmanager
def broken_connections() -> Iterator[None]:
    """Raise WorkFailed in place of the errors that a rank gets because another one has ended."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or _CONNECTION.search(str(error)):
            raise WorkFailed(
                f"the connection to another rank broke ({first_line(error)}); the message of the "
                "rank that ended first has the cause"
            ) from None
        raise


def gather(own: T) -> list[T]:
    """Return the object of every rank, by rank; all ranks call it."""
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, own)
    return gathered


def on_rank_0(work: Callable[[], T]) -> T:
    """Call `work` on rank 0 only; return its result, or raise its error, on all ranks.

    All ranks call it. An error that is not an LrmError is raised as WorkFailed. Without a process
    group, this process calls `work`.
    """
    if not dist.is_initialized():
        return work()
    result: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            result[0] = work()
        except LrmError as error:
            result[0] = error
        except OSError as error:
            result[0] = WorkFailed(str(error))
        except Exception as error:  # noqa: BLE001 - the other ranks wait for a result
            _log.exception("rank 0 failed while the other ranks waited for its result")
            result[0] = WorkFailed(f"rank 0: {type(error).__name__}: {first_line(error)}")
    dist.broadcast_object_list(result)
    if isinstance(result[0], LrmError):
        raise result[0]
    return result[0]
