"""FLOPs and memory of a recipe's training step, counted on the meta device without data."""

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

__all__ = ["MetaStep", "StepCost", "SupportsMetaStep", "count_step", "parts_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MetaStep:
    """A recipe's training step on the meta device: tensors have shapes and no data."""

    module: nn.Module
    """The trained module."""
    step: Callable[[int], Tensor]
    """Returns the loss of a micro batch with the given number of objects."""
    frozen: Mapping[str, nn.Module] = field(default_factory=dict)
    """Networks of the loss or of preprocessing that are not trained, by name."""
    assumed: Sequence[str] = ()
    """Assumptions about values that the real step computes from data, one line each."""


class SupportsMetaStep(Protocol):
    """A recipe whose step can be estimated before it runs."""

    @property
    def config(self) -> TrainConfig:
        """The configuration of the run."""

    def meta_step(self) -> MetaStep:
        """Return the step on the meta device, without reading data."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Cost of the forward and backward pass of a micro batch on one rank."""

    forward: Mapping[str, float]
    """FLOPs, by part of the model."""
    backward: float
    """FLOPs, including those of activation recomputation."""
    activation_bytes: float
    """Peak of live bytes, without parameters and their gradients."""

    def extrapolated(self, more: "StepCost", objects: int) -> "StepCost":
        """Return the cost of `objects` objects, given that of one (self) and of two (`more`)."""
        return self._plus(more._plus(self, -1), objects - 1)

    def _plus(self, other: "StepCost", factor: float) -> "StepCost":
        return StepCost(
            forward={
                name: ops + factor * other.forward[name] for name, ops in self.forward.items()
            },
            backward=self.backward + factor * other.backward,
            activation_bytes=self.activation_bytes + factor * other.activation_bytes,
        )


def count_step(meta_step: MetaStep, objects: int) -> StepCost:
    """Return the cost of a micro batch's step and backward pass, counted on the meta device.

    FLOPs are those of matrix products, convolutions and attention: all but a few per cent.
    Attention is counted as its fused kernels compute it. The cost is measured for one and two
    objects and extrapolated linearly, because objects share no work.
    """
    one = _count(meta_step, 1)
    return one if objects == 1 else one.extrapolated(_count(meta_step, 2), objects)


def parts_of(module: nn.Module) -> dict[str, nn.Module]:
    """Return the main parts of a model by name: the children of its outermost branching module.

    Children without parameters are left out.
    """
    children = {name: part for name, part in module.named_children() if [*part.parameters()]}
    if len(children) == 1:
        (child,) = children.values()
        inner = parts_of(child)
        # A ModuleList is never called, so hooks on it would count nothing: keep its owner whole.
        has_list = any(isinstance(part, nn.ModuleList) for part in inner.values())
        return inner if inner and not has_list else children
    return children


def _count(meta_step: MetaStep, objects: int) -> StepCost:
    """Count one step.

    FLOPs outside the call of any part are assigned to the one part that is never called, or to
    `rest` if there is not exactly one.
    """
    parts = {**parts_of(meta_step.module), **meta_step.frozen}
    meter = _Meter()
    ops = dict.fromkeys(parts, 0.0)
    called = set()
    handles = [
        parameter.register_post_accumulate_grad_hook(_drop_gradient)
        for parameter in meta_step.module.parameters()
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
            loss = meta_step.step(objects)
            forward, total = dict(ops), meter.ops
            loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    if unassigned := total - sum(forward.values()):
        uncalled = [name for name in parts if name not in called]
        owner = uncalled[0] if len(uncalled) == 1 else "rest"
        forward[owner] = forward.get(owner, 0.0) + unassigned
    return StepCost(forward=forward, backward=meter.ops - total, activation_bytes=meter.peak)


def _drop_gradient(parameter: Tensor) -> None:
    """Free a gradient at once: gradients are estimated with the parameters, not per step."""
    parameter.grad = None


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Count attention as GPU kernels compute it, without storing the attention matrix.

    On the meta device, torch would store that matrix. The function is replaced in its module,
    because a TorchFunctionMode does not see the call inside torch's MultiheadAttention.
    """
    original = F.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if any(args) or any(kwargs.values()):
            return original(query, key, value, *args, **kwargs)
        efficient = torch.ops.aten._scaled_dot_product_efficient_attention
        return efficient(query, key, value, None, True)[0]

    F.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


class _Meter(TorchDispatchMode):
    """Counter of FLOPs and of the peak bytes of new tensors.

    It uses torch's FLOP formulas but not torch's FlopCounterMode, which keeps references to tensors
    that activation checkpointing frees.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ops = 0.0
        self.peak = 0
        self._live_bytes = 0
        self._counted: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {id(tensor.untyped_storage()) for tensor in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.ops += formula(*args, **(kwargs or {}), out_val=result)
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if id(storage) not in inputs and storage not in self._counted:
                self._counted.add(storage)
                self._live_bytes += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self._live_bytes)
        return result

    def _free(self, num_bytes: int) -> None:
        self._live_bytes -= num_bytes


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
