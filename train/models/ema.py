"""A moving average of trained weights, in float32 whatever the run's precision."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Ema", "ema_state"]


class Ema(nn.Module):
    """Average of a module's parameters up to the step before the newest.

    The newest weights are taken in when the next step begins, and by whoever reads the average:
    so a checkpoint, which holds both, needs no word from the optimizer.

    Not `torch.optim.swa_utils.AveragedModel` (torch 2.13): its copies are parameters, which the
    optimizer would train and DeepSpeed cast to bfloat16, and its first update forgets the weights
    that the average starts at. Its keys (`module.…`) are others than those of our checkpoints.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Starts at the module's weights."""
        super().__init__()
        self.decay = decay
        for name, parameter in module.named_parameters():
            self.register_buffer(_flat(name), parameter.detach().float().clone())

    def _apply(self, fn, recurse: bool = True) -> nn.Module:  # type: ignore[no-untyped-def]
        """Goes to the device that the others go to, and stays in float32."""
        for name, value in self.named_buffers():
            self._buffers[name] = value.to(fn(value.new_empty(0)).device)
        return self

    @torch.no_grad()
    def take(self, module: nn.Module) -> None:
        """average <- decay · average + (1 - decay) · weights."""
        for name, parameter in module.named_parameters():
            self.get_buffer(_flat(name)).lerp_(parameter.detach().float(), 1 - self.decay)

    @contextmanager
    def worn_by(self, module: nn.Module) -> Iterator[None]:
        """The module has the average, its own weights taken in, and gets them back at the end."""
        kept = {name: p.detach().clone() for name, p in module.named_parameters()}
        averages = dict(self.named_buffers())
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                average = averages[_flat(name)]
                parameter.copy_(average.lerp(kept[name].float(), 1 - self.decay))
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.copy_(kept[name])


def ema_state(
    average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float
) -> dict[str, Tensor]:
    """The average by the weights' names, the weights taken in, from an `Ema`'s state."""
    return {
        name: average[_flat(name)].lerp(weight.float(), 1 - decay)
        for name, weight in weights.items()
    }


def _flat(name: str) -> str:
    """A buffer's name has no dots."""
    return name.replace(".", "/")
