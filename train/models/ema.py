"""Exponential moving average of trained weights, kept in float32 for any training precision."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Ema", "ema_state"]


class Ema(nn.Module):
    """Average of a module's parameters, one step behind the newest weights.

    The newest weights are added when the next step begins, or when the average is read. The update
    therefore needs no hook in the optimizer, and a checkpoint holds both parts.

    `torch.optim.swa_utils.AveragedModel` (torch 2.13) does not fit: the optimizer would train its
    copies, which are parameters, and DeepSpeed would cast them to bfloat16; its first update
    discards the initial weights; and its keys (`module.…`) differ from those of our checkpoints.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start the average at the module's weights; `decay` is the share kept per step."""
        super().__init__()
        self.decay = decay
        for name, parameter in module.named_parameters():
            self.register_buffer(_buffer_name(name), parameter.detach().float().clone())

    def _apply(self, fn, recurse: bool = True) -> nn.Module:  # type: ignore[no-untyped-def]
        """Move to the device that `fn` moves to, but stay in float32."""
        for name, value in self.named_buffers():
            self._buffers[name] = value.to(fn(value.new_empty(0)).device)
        return self

    @torch.no_grad()
    def take(self, module: nn.Module) -> None:
        """Add the weights: average <- decay · average + (1 - decay) · weights."""
        for name, parameter in module.named_parameters():
            self.get_buffer(_buffer_name(name)).lerp_(parameter.detach().float(), 1 - self.decay)

    @contextmanager
    def worn_by(self, module: nn.Module) -> Iterator[None]:
        """Give a module the average, with its newest weights added, until the context ends."""
        original = {name: p.detach().clone() for name, p in module.named_parameters()}
        averages = dict(self.named_buffers())
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                average = averages[_buffer_name(name)]
                parameter.copy_(average.lerp(original[name].float(), 1 - self.decay))
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.copy_(original[name])


def ema_state(
    average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float
) -> dict[str, Tensor]:
    """Return the average under the weights' names, with the newest weights added.

    `average` is the state dict of an `Ema`, `weights` that of the averaged module.
    """
    return {
        name: average[_buffer_name(name)].lerp(weight.float(), 1 - decay)
        for name, weight in weights.items()
    }


def _buffer_name(name: str) -> str:
    """Return a parameter's name without dots, which torch forbids in buffer names."""
    return name.replace(".", "/")
