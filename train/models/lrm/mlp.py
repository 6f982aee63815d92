"""The small networks that decode a point's triplane features."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["in_float32", "point_mlp", "without_autocast"]


def point_mlp(inputs: int, width: int, num_hidden_layers: int, outputs: int) -> nn.Sequential:
    """Return linear layers with ReLU between them; their keys are 0, 2, 4, ... as published.

    Biases are initially 0.
    """
    layers: list[nn.Module] = []
    for layer_inputs, layer_outputs in pairwise([inputs] + [width] * num_hidden_layers):
        layers += [nn.Linear(layer_inputs, layer_outputs), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(width, outputs))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    return net


def in_float32(layers: Iterable[nn.Module], inputs: Float[Tensor, "*n f"]) -> Float[Tensor, "*n o"]:
    """Apply layers in float32, regardless of the type of their parameters and of autocast.

    The surface is where the distance is 0, and bfloat16's eight significant bits would be too
    coarse for it.
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
    """Return a context without autocast; on the meta device, which has none, an empty context."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
