"""LPIPS with VGG16 (Zhang et al., arXiv 1801.03924, version 0.1), without torchvision.

Its weights are in two files: VGG16 under torchvision's key names, and the linear layers in the
`lpips` wheel. The wheel's file is read, but the package is never imported, because it imports
torchvision.
"""

import importlib.util
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import field_validator
from torch import Tensor, nn

from core.config import Config
from core.errors import BadInput
from train.models.weight_files.state_dicts import read_state

__all__ = ["Lpips", "LpipsConfig", "load_lpips"]

_VGG_FILE = "vgg16-397923af.pth"
_VGG_URL = f"https://download.pytorch.org/models/{_VGG_FILE}"
# Channels of VGG16's layers. Blocks end at the compared layers: relu1_2, 2_2, 3_3, 4_3, 5_3.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_MIN_SIDE = 2 ** (len(_BLOCKS) - 1)
"""Smallest side of an image in pixels: each of the four poolings halves it."""
# Normalisation of images in [-1, 1], from the LPIPS 0.1 package.
_MEAN = (-0.030, -0.088, -0.188)
_STD = (0.458, 0.448, 0.450)
_HINT = "or do without: --loss.lpips 0 in training, --no-lpips in evaluation"
_VGG_REMEDY = f"download {_VGG_URL} to that path, give --lpips.vgg FILE, {_HINT}"
_LINEAR_REMEDY = f"give --lpips.linear the wheel's file weights/v0.1/vgg.pth, {_HINT}"


class LpipsConfig(Config):
    """Paths of the LPIPS weights."""

    vgg: str | None = None
    """File of torchvision's VGG16 weights; by default the one in the cache of torch hub."""
    linear: str | None = None
    """File of the linear layers (vgg.pth of the lpips wheel); by default the installed wheel's."""

    @field_validator("vgg", "linear")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        # Training workers run in other working directories.
        return None if path is None else str(Path(path).expanduser().absolute())


class Lpips(nn.Module):
    """Perceptual distance of images, with constant weights."""

    mean_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        self._block_ends: list[int] = []
        for block, widths in enumerate(_BLOCKS):
            layers += [nn.MaxPool2d(2)] if block else []
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self._block_ends.append(len(layers))
        self.features = nn.Sequential(*layers)
        self.linear = nn.ParameterList(torch.zeros(widths[-1]) for widths in _BLOCKS)
        mean_std = torch.tensor([_MEAN, _STD])[:, :, None, None]
        self.register_buffer("mean_std", mean_std, persistent=False)
        self.requires_grad_(False)

    def forward(
        self, images: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n"]:
        """Return the distance of each pair of RGB images in [-1, 1].

        Raises ValueError if the images are too small for VGG16's four poolings.
        """
        if min(images.shape[-2:]) < _MIN_SIDE:
            height, width = images.shape[-2:]
            raise ValueError(
                f"LPIPS needs images of at least {_MIN_SIDE} x {_MIN_SIDE} pixels, "
                f"not {height} x {width}"
            )
        mean, std = self.mean_std
        a, b = (images - mean) / std, (targets - mean) / std
        distance = images.new_zeros(len(images))
        spans = pairwise([0, *self._block_ends])
        for (start, stop), weight in zip(spans, self.linear, strict=True):
            block = self.features[start:stop]
            a, b = block(a), block(b)
            difference = (_unit(a) - _unit(b)).square() * weight[:, None, None]
            distance = distance + difference.sum(dim=1).mean(dim=(1, 2))
        return distance


def _unit(features: Tensor) -> Tensor:
    # The epsilon is inside the root, so that the gradient is finite where all channels are zero.
    return features * (features.square().sum(dim=1, keepdim=True) + 1e-10).rsqrt()


def load_lpips(config: LpipsConfig) -> Lpips:
    """Load LPIPS with its published weights. Raises BadInput if a file is missing or wrong."""
    vgg_path, linear_path = find_weights(config)
    vgg, linear = _read(vgg_path, _VGG_REMEDY), _read(linear_path, _LINEAR_REMEDY)
    model = Lpips()
    weights = {name: vgg.get(name) for name in model.state_dict() if name.startswith("features.")}
    _copy(model, weights, vgg_path)
    weights = {
        f"linear.{layer}": linear.get(f"lin{layer}.model.1.weight") for layer in range(len(_BLOCKS))
    }
    _copy(model, weights, linear_path)
    return model


def find_weights(config: LpipsConfig) -> tuple[Path, Path]:
    """Return the paths of the VGG16 and the linear weights. Raises BadInput if one is missing."""
    vgg = Path(config.vgg) if config.vgg else _hub_file()
    linear = Path(config.linear) if config.linear else _wheel_file()
    for path, remedy in ((vgg, _VGG_REMEDY), (linear, _LINEAR_REMEDY)):
        if not path.exists():
            raise BadInput(f"LPIPS: {path} is missing: {remedy}")
    return vgg, linear


def _hub_file() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / _VGG_FILE


def _wheel_file() -> Path:
    package = importlib.util.find_spec("lpips")
    if package is None or package.origin is None:
        raise BadInput(
            "LPIPS: the lpips wheel, which has the linear weights, is not installed: "
            f"pip install --no-deps lpips==0.1.4, {_HINT}"
        )
    return Path(package.origin).parent / "weights" / "v0.1" / "vgg.pth"


def _read(path: Path, remedy: str) -> Mapping[str, Tensor]:
    try:
        return read_state(path)
    except BadInput as error:
        problem = str(error).removeprefix(f"{path}: ")
        raise BadInput(f"LPIPS: {path} is not a weight file ({problem}): {remedy}") from None


def _copy(model: Lpips, weights: Mapping[str, Tensor | None], path: Path) -> None:
    state = model.state_dict()
    for name, value in weights.items():
        if value is None or value.numel() != state[name].numel():
            content = "nothing" if value is None else f"shape {tuple(value.shape)}"
            raise BadInput(
                f"LPIPS: {path} has {content} for {name}, which needs {tuple(state[name].shape)}: "
                "it may be the file of another network"
            )
        state[name].copy_(value.reshape(state[name].shape))
