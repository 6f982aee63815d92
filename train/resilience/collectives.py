"""How ranks exchange Python objects, and how one rank decides for all."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from core.errors import LrmError, WorkFailed, first_line

__all__ = ["gather", "on_rank_0"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


def gather(own: T) -> list[T]:
    """Return the object of every rank, by rank; all ranks call it."""
    shares: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shares, own)
    return shares


def on_rank_0(work: Callable[[], T]) -> T:
    """Return what the work returns on rank 0, or raise its error, on all ranks.

    All ranks call it. An error that is no LrmError arrives as WorkFailed. Without a process group,
    it simply calls the work.
    """
    if not dist.is_initialized():
        return work()
    answer: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            answer[0] = work()
        except LrmError as error:
            answer[0] = error
        except Exception as error:  # noqa: BLE001 - the other ranks wait for an answer
            _log.exception("rank 0 failed while the other ranks waited")
            answer[0] = WorkFailed(f"rank 0: {type(error).__name__}: {first_line(error)}")
    dist.broadcast_object_list(answer)
    if isinstance(answer[0], LrmError):
        raise answer[0]
    return answer[0]
