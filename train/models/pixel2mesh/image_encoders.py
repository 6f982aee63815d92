"""The image network of Pixel2Mesh's released code: 18 convolutions, four maps of features.

It is not VGG16, which the paper names: groups of 2 to 4 convolutions with 16 to 512 channels, a
stride of 2 instead of pooling, and no normalisation, neither of pictures nor between layers. The
attribute names are the keys of the published checkpoints.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["WIDTHS", "Grid", "Padding", "VggEncoder"]

Padding = Literal["symmetric", "tensorflow"]
Grid = tuple[int, int]
"""Stride and offset of a map of features: cell i has its centre at the pixel index
stride * i + offset, where pixel 0 is the first one of the picture."""

WIDTHS = (16, 32, 64, 128, 256, 512)
"""Channels of the published network's groups."""
_NUM_CONVOLUTIONS = (2, 3, 3, 3, 3, 4)
_KERNELS = (3, 3, 3, 3, 5, 5)
"""Kernel size of the first convolution of each group; the others have 3."""
_FIRST_MAP = 2
"""Index of the first group whose result is returned."""


class VggEncoder(nn.Module):
    """Maps of features at 1/4, 1/8, 1/16 and 1/32 of the picture's size.

    `padding` is that of the convolutions with stride 2: `symmetric`, or one row and column less
    before the picture, as in TensorFlow (the migrated checkpoint). Initial weights (He et al.,
    arXiv 1502.01852, for ReLU) are drawn from torch's global generator.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, padding: Padding = "symmetric") -> None:
        super().__init__()
        self._groups: list[list[str]] = []
        self._shift = int(padding == "tensorflow")
        channels = 3
        for group, width in enumerate(widths):
            names = [f"conv{group}_{i + 1}" for i in range(_NUM_CONVOLUTIONS[group])]
            for i, name in enumerate(names):
                is_first = group > 0 and i == 0
                kernel = _KERNELS[group] if is_first else 3
                # A padding of its own is added in `forward` where both sides differ.
                pad = 0 if is_first and self._shift else kernel // 2
                convolution = nn.Conv2d(channels, width, kernel, 1 + is_first, pad)
                nn.init.kaiming_uniform_(convolution.weight, nonlinearity="relu")
                nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
                self.add_module(name, convolution)
                channels = width
            self._groups.append(names)
        self.channels = tuple(widths[_FIRST_MAP:])
        """Number of channels of each map."""
        strides = [2**group for group in range(len(widths))][_FIRST_MAP:]
        self.grids: tuple[Grid, ...] = tuple((s, self._shift * (s - 1)) for s in strides)
        """Stride and offset of each map."""

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the maps of RGB pictures in [0, 1]."""
        maps = []
        hidden = images
        for group, names in enumerate(self._groups):
            for i, name in enumerate(names):
                if group > 0 and i == 0 and self._shift:
                    before, after = _KERNELS[group] // 2 - 1, _KERNELS[group] // 2
                    hidden = F.pad(hidden, (before, after, before, after))
                hidden = F.relu(self.get_submodule(name)(hidden), inplace=True)
            if group >= _FIRST_MAP:
                maps.append(hidden)
        return maps
