"""How ranks exchange Python objects, and how one rank decides for all."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from core.errors import LrmError

__all__ = ["gather", "on_rank_0"]

T = TypeVar("T")


def gather(own: T) -> list[T]:
    """Return the object of every rank, by rank; all ranks call it."""
    shares: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shares, own)
    return shares


def on_rank_0(work: Callable[[], T]) -> T:
    """Return what the work returns on rank 0, or raise its LrmError, on all ranks.

    All ranks call it. Without a process group, it simply calls the work.
    """
    if not dist.is_initialized():
        return work()
    answer: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            answer[0] = work()
        except LrmError as error:
            answer[0] = error
    dist.broadcast_object_list(answer)
    if isinstance(answer[0], LrmError):
        raise answer[0]
    return answer[0]
