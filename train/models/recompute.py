"""Work whose activations are made again in the backward pass instead of being kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from diffusers import ModelMixin

__all__ = ["nothing_recomputed", "recompute_blocks", "recomputed"]

P = ParamSpec("P")
R = TypeVar("R")
_allowed = ContextVar("allowed", default=True)


def recomputed(work: Callable[P, R], recompute: bool = True) -> Callable[P, R]:
    """The same work, done again where a gradient needs it. Nothing random may happen inside."""
    if not (recompute and _allowed.get() and torch.is_grad_enabled()):
        return work
    return partial(checkpoint, work, use_reentrant=False, preserve_rng_state=False)


def recompute_blocks(model: "ModelMixin") -> None:
    """Let each block of a model of diffusers be computed again, as `recomputed` does it."""

    def block_again(block: nn.Module, *given: Any) -> Any:
        return recomputed(block)(*given)

    model.enable_gradient_checkpointing(block_again)


@contextmanager
def nothing_recomputed() -> Iterator[None]:
    """Everything is kept meanwhile: for counting what a model does, not how often."""
    before = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(before)
