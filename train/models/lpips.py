"""LPIPS with VGG16 (Zhang et al., arXiv 1801.03924, version 0.1), without torchvision.

Two files hold its weights: VGG16 under torchvision's key names, and the linear layers that the
`lpips` wheel carries. The wheel is read, never imported: it imports torchvision.
"""

import importlib.util
import pickle
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import field_validator
from torch import Tensor, nn

from core.config import Config
from core.errors import BadInput

__all__ = ["Lpips", "LpipsConfig", "load_lpips"]

_VGG_FILE = "vgg16-397923af.pth"
_VGG_URL = f"https://download.pytorch.org/models/{_VGG_FILE}"
# One block per compared layer: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_SMALLEST_SIDE = 2 ** (len(_BLOCKS) - 1)
_MEAN = (-0.030, -0.088, -0.188)
_STD = (0.458, 0.448, 0.450)
_HINT = "or set the weight lpips to 0 in training, and give lrm evaluate --no-lpips"
_VGG_REMEDY = f"download {_VGG_URL} to there, name a copy as vgg, {_HINT}"
_LINEAR_REMEDY = f"name the wheel's weights/v0.1/vgg.pth as linear, {_HINT}"


class LpipsConfig(Config):
    """Where the weights of LPIPS lie."""

    vgg: str | None = None
    """VGG16 in torchvision's layout; None: the checkpoints of the torch hub cache."""
    linear: str | None = None
    """The linear layers (vgg.pth of the lpips wheel); None: the installed wheel."""

    @field_validator("vgg", "linear")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        # Workers stand in folders of their own.
        return None if path is None else str(Path(path).expanduser().absolute())


class Lpips(nn.Module):
    """Perceptual distance of images; its weights are constants, not parameters to train."""

    mean_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        self._compared: list[int] = []
        for block, widths in enumerate(_BLOCKS):
            layers += [nn.MaxPool2d(2)] if block else []
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self._compared.append(len(layers))
        self.features = nn.Sequential(*layers)
        self.linear = nn.ParameterList(torch.zeros(widths[-1]) for widths in _BLOCKS)
        mean_std = torch.tensor([_MEAN, _STD])[:, :, None, None]
        self.register_buffer("mean_std", mean_std, persistent=False)
        self.requires_grad_(False)

    def forward(
        self, images: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n"]:
        """The distance of each pair of RGB images in [-1, 1].

        Raises ValueError for images too small for VGG's four poolings.
        """
        if min(images.shape[-2:]) < _SMALLEST_SIDE:
            height, width = images.shape[-2:]
            raise ValueError(
                f"LPIPS needs images of {_SMALLEST_SIDE} pixels or more, not {height}x{width}"
            )
        mean, std = self.mean_std
        a, b = (images - mean) / std, (targets - mean) / std
        distance = images.new_zeros(len(images))
        spans = pairwise([0, *self._compared])
        for (start, stop), weight in zip(spans, self.linear, strict=True):
            block = self.features[start:stop]
            a, b = block(a), block(b)
            apart = (_unit(a) - _unit(b)).square() * weight[:, None, None]
            distance = distance + apart.sum(dim=1).mean(dim=(1, 2))
        return distance


def _unit(features: Tensor) -> Tensor:
    # Inside the root, so that the gradient is finite where every channel is zero.
    return features * (features.square().sum(dim=1, keepdim=True) + 1e-10).rsqrt()


def load_lpips(config: LpipsConfig) -> Lpips:
    """LPIPS with its published weights. Raises BadInput naming a file that is missing or wrong."""
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
    """The files of VGG16 and of the linear layers. Raises BadInput naming one that is missing."""
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
            "LPIPS: its linear weights are in the lpips wheel, which is not installed: "
            f"pip install --no-deps lpips==0.1.4, {_HINT}"
        )
    return Path(package.origin).parent / "weights" / "v0.1" / "vgg.pth"


def _read(path: Path, remedy: str) -> Mapping[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInput(f"LPIPS: {path} is missing: {remedy}") from None
    except (OSError, RuntimeError, EOFError, LookupError, pickle.UnpicklingError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"LPIPS: {path} is no weight file ({problem}): {remedy}") from None
    if not isinstance(weights, Mapping):
        raise BadInput(f"LPIPS: {path} holds no weights by name: {remedy}")
    return weights


def _copy(model: Lpips, weights: Mapping[str, Tensor | None], path: Path) -> None:
    state = model.state_dict()
    for name, value in weights.items():
        if value is None or value.numel() != state[name].numel():
            found = "nothing" if value is None else f"shape {tuple(value.shape)}"
            raise BadInput(
                f"LPIPS: {path} has {found} for {name}, which needs {tuple(state[name].shape)}: "
                "is it the file of another network?"
            )
        state[name].copy_(value.reshape(state[name].shape))
