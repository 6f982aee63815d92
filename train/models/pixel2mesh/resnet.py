"""ResNet-50 (He et al., arXiv 1512.03385) as an image network, under torchvision's key names."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from train.models.pixel2mesh.image_encoders import Grid

__all__ = ["ResNetEncoder"]

_NUM_BLOCKS = (3, 4, 6, 3)
_EXPANSION = 4
"""Channels of a block's result per channel of its 3x3 convolution."""
# Mean and standard deviation of ImageNet's pictures, with which the published weights were trained.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class ResNetEncoder(nn.Module):
    """Maps of features at 1/4, 1/8, 1/16 and 1/32 of the picture's size.

    The statistics of its batch normalisation are constants (those of the loaded weights), also in
    training: a picture's features depend on no other picture, so neither the micro batch nor the
    number of ranks changes a result. The weight and bias after them are trained. Without loaded
    weights (`--init resnet50:FILE`) the statistics are 0 and 1, and each block starts as its
    shortcut, so that the sizes of features stay the same from block to block.
    """

    mean_std: Tensor

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1 = _convolution(3, width, 7, stride=2)
        self.bn1 = _FixedBatchNorm(width)
        channels = width
        for i, num_blocks in enumerate(_NUM_BLOCKS):
            blocks = []
            for block in range(num_blocks):
                stride = 2 if i > 0 and block == 0 else 1
                blocks.append(_Block(channels, width * 2**i, stride))
                channels = width * 2**i * _EXPANSION
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        mean_std = torch.tensor([_MEAN, _STD])[:, :, None, None]
        self.register_buffer("mean_std", mean_std, persistent=False)
        self.channels = tuple(width * 2**i * _EXPANSION for i in range(len(_NUM_BLOCKS)))
        """Number of channels of each map: 256, 512, 1024 and 2048."""
        self.grids: tuple[Grid, ...] = tuple((2 ** (i + 2), 0) for i in range(len(_NUM_BLOCKS)))
        """Stride and offset of each map."""

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the maps of RGB pictures in [0, 1], which are normalised as ImageNet's are."""
        mean, std = self.mean_std.to(images.dtype)
        hidden = F.relu(self.bn1(self.conv1((images - mean) / std)), inplace=True)
        hidden = F.max_pool2d(hidden, 3, stride=2, padding=1)
        maps = []
        for i in range(len(_NUM_BLOCKS)):
            hidden = self.get_submodule(f"layer{i + 1}")(hidden)
            maps.append(hidden)
        return maps


class _Block(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 around a shortcut; the stride is that of the 3x3 one."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * _EXPANSION
        self.conv1, self.bn1 = _convolution(channels, width, 1), _FixedBatchNorm(width)
        self.conv2, self.bn2 = _convolution(width, width, 3, stride), _FixedBatchNorm(width)
        self.conv3, self.bn3 = _convolution(width, out, 1), _FixedBatchNorm(out)
        nn.init.zeros_(self.bn3.weight)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or channels != out:
            shortcut = _convolution(channels, out, 1, stride)
            self.downsample = nn.Sequential(shortcut, _FixedBatchNorm(out))

    def forward(self, inputs: Tensor) -> Tensor:
        shortcut = inputs if self.downsample is None else self.downsample(inputs)
        hidden = F.relu(self.bn1(self.conv1(inputs)), inplace=True)
        hidden = F.relu(self.bn2(self.conv2(hidden)), inplace=True)
        return F.relu(self.bn3(self.conv3(hidden)) + shortcut)


class _FixedBatchNorm(nn.Module):
    """Batch normalisation with constant statistics; its weight and bias are trained."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(value(channels)) for value in (torch.ones, torch.zeros)
        )
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        return F.batch_norm(inputs, *statistics, self.weight, self.bias, training=False)


def _convolution(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    return layer
