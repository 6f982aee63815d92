"""What a recipe shows of itself before it runs: its step on the meta device, without data."""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from train.settings.train_config import TrainConfig

__all__ = ["Outline", "Sizable", "StepCost", "count_step", "parts_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outline:
    """A recipe's step on the meta device: shapes without numbers, so that it costs nothing."""

    module: nn.Module
    """What is trained."""
    step: Callable[[int], Tensor]
    """The loss of a micro-batch of so many objects."""
    frozen: Mapping[str, nn.Module] = field(default_factory=dict)
    """Networks that only measure, by name."""
    assumed: Sequence[str] = ()
    """What the real step finds out from numbers, and what is taken instead, a line each."""


class Sizable(Protocol):
    """What sizing asks of a recipe."""

    @property
    def config(self) -> TrainConfig:
        """The configuration of the run."""

    def outline(self) -> Outline:
        """The step on the meta device; nothing is read."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Forward and backward pass of a micro-batch on one worker."""

    forward: Mapping[str, float]
    """Floating-point operations by part."""
    backward: float
    """Floating-point operations, what is computed again counted in."""
    activation_bytes: float
    """Most bytes that are alive at once, without parameters and their gradients."""

    def extrapolated(self, more: "StepCost", objects: int) -> "StepCost":
        """From the cost of one object (self) and of two (`more`), that of any number above."""
        return self._with(more._with(self, -1), objects - 1)

    def _with(self, other: "StepCost", factor: float) -> "StepCost":
        return StepCost(
            forward={
                name: ops + factor * other.forward[name] for name, ops in self.forward.items()
            },
            backward=self.backward + factor * other.backward,
            activation_bytes=self.activation_bytes + factor * other.activation_bytes,
        )


def count_step(outline: Outline, objects: int) -> StepCost:
    """Run the step of a micro-batch and its backward pass on the meta device, and count.

    Operations are those of matrix products, convolutions and attention, which are all but a few per
    cent; attention counts, and is stored, as its fused kernels do it. Costs are measured for one
    object and for two and go on from there in a straight line, because objects share nothing.
    """
    one = _count(outline, 1)
    return one if objects == 1 else one.extrapolated(_count(outline, 2), objects)


def parts_of(module: nn.Module) -> dict[str, nn.Module]:
    """The parts that a person would name: the children, below wrappers with a single one."""
    children = {name: part for name, part in module.named_children() if [*part.parameters()]}
    if len(children) == 1:
        (only,) = children.values()
        inner = parts_of(only)
        # A list of blocks is never called as such: what has some is a part by itself.
        listed = any(isinstance(part, nn.ModuleList) for part in inner.values())
        return inner if inner and not listed else children
    return children


def _count(outline: Outline, objects: int) -> StepCost:
    """What is outside every part's call belongs to the one part that is never called."""
    parts = {**parts_of(outline.module), **outline.frozen}
    meter = _Meter()
    ops = dict.fromkeys(parts, 0.0)
    called = set()
    handles = [
        parameter.register_post_accumulate_grad_hook(_drop_gradient)
        for parameter in outline.module.parameters()
        if parameter.requires_grad
    ]
    for name, part in parts.items():

        def enter(*_: Any, name: str = name) -> None:
            called.add(name)
            ops[name] -= meter.ops

        def leave(*_: Any, name: str = name) -> None:
            ops[name] += meter.ops

        handles += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        with meter, _fused_attention():
            loss = outline.step(objects)
            forward, total = dict(ops), meter.ops
            loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    if rest := total - sum(forward.values()):
        silent = [name for name in parts if name not in called]
        owner = silent[0] if len(silent) == 1 else "rest"
        forward[owner] = forward.get(owner, 0.0) + rest
    return StepCost(forward=forward, backward=meter.ops - total, activation_bytes=meter.peak)


def _drop_gradient(parameter: Tensor) -> None:
    """Gradients are sized with the parameters, not with what is alive in a step."""
    parameter.grad = None


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention as GPUs do it, without storing its matrix, which the meta device would store.

    The function is replaced in its module, because a function mode does not see the call inside
    torch's own MultiheadAttention.
    """
    plain = F.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Tensor:
        if any(rest) or any(named.values()):
            return plain(query, key, value, *rest, **named)
        efficient = torch.ops.aten._scaled_dot_product_efficient_attention
        return efficient(query, key, value, None, True)[0]

    F.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


class _Meter(TorchDispatchMode):
    """Floating-point operations so far, and the most bytes that new tensors occupied at one time.

    With torch's own formulas, but not its counter, which keeps what checkpoints should let go.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ops = 0.0
        self.peak = 0
        self._now = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(tensor.untyped_storage()) for tensor in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.ops += formula(*args, **(kwargs or {}), out_val=result)
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if id(storage) not in given and storage not in self._seen:
                self._seen.add(storage)
                self._now += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self._now)
        return result

    def _free(self, num_bytes: int) -> None:
        self._now -= num_bytes


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
