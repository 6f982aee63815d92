"""Activation checkpointing: recompute activations in the backward pass instead of keeping them."""

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

__all__ = ["recompute_blocks", "recompute_in_backward", "without_recompute"]

P = ParamSpec("P")
R = TypeVar("R")
_allowed = ContextVar("allowed", default=True)


def recompute_in_backward(work: Callable[P, R], recompute: bool = True) -> Callable[P, R]:
    """Return `work` with activation checkpointing.

    It is returned unchanged if `recompute` is false, no gradient is needed, or checkpointing is
    switched off by `without_recompute`. `work` must not use random numbers, because the
    generator's state is not restored.
    """
    if not (recompute and _allowed.get() and torch.is_grad_enabled()):
        return work
    return partial(checkpoint, work, use_reentrant=False, preserve_rng_state=False)


def recompute_blocks(model: "ModelMixin") -> None:
    """Recompute each block of a diffusers model in backward, as `recompute_in_backward` does."""

    def checkpoint_block(block: nn.Module, *args: Any) -> Any:
        return recompute_in_backward(block)(*args)

    model.enable_gradient_checkpointing(checkpoint_block)


@contextmanager
def without_recompute() -> Iterator[None]:
    """Switch activation checkpointing off, so that FLOPs are counted once per operation."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)
