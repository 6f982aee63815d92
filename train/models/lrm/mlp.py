"""The small networks that turn a point's triplane features into what is there."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["exact", "point_mlp", "without_autocast"]


def point_mlp(inputs: int, width: int, num_hidden_layers: int, outputs: int) -> nn.Sequential:
    """Linear layers with ReLU between them, biases at 0; keys 0, 2, 4, ... as published."""
    layers: list[nn.Module] = []
    for before, after in pairwise([inputs] + [width] * num_hidden_layers):
        layers += [nn.Linear(before, after), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(width, outputs))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    return net


def exact(layers: Iterable[nn.Module], inputs: Float[Tensor, "*n f"]) -> Float[Tensor, "*n o"]:
    """Linear and other layers computed in float32, whatever their parameters and autocast are.

    Where a distance is 0 decides where a surface is, and bfloat16 has eight bits to say so.
    """
    values = inputs.float()
    with without_autocast(values.device):
        for layer in layers:
            if isinstance(layer, nn.Linear):
                values = F.linear(values, layer.weight.float(), layer.bias.float())
            else:
                values = layer(values)
    return values


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Types as they are written; the meta device has no autocast to leave."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
