"""The image encoder: a DINO vision transformer whose layer norms are modulated by the camera.

See InstantMesh (arXiv 2404.07191), section 3.2. Module names are the keys of the published
checkpoints.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from core.config import Config, PositiveInt, Side
from train.models.recompute import recompute_in_backward

__all__ = ["CAMERA_NUMBERS", "CameraViT", "ViTConfig", "camera_vector"]

CAMERA_NUMBERS = 16
"""Length of a camera vector."""
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_NORM_EPS = 1e-12


class ViTConfig(Config):
    """Sizes of the encoder; the defaults are DINO ViT-B/16."""

    num_layers: Annotated[int, Field(gt=0, le=256)] = 12
    """Number of layers."""
    width: PositiveInt = 768
    """Number of features per token."""
    num_heads: PositiveInt = 12
    """Number of attention heads; must divide `width`."""
    mlp_width: PositiveInt = 3072
    """Width of the hidden layer of each MLP."""
    patch_size: Side = 16
    """Side of a patch in pixels."""
    position_side: PositiveInt = 14
    """Patches along a side of the learned position table (14: pretrained at 224 pixels)."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "ViTConfig":
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        return self


def camera_vector(
    camera_to_world: Float[Tensor, "*b 4 4"], intrinsics: Float[Tensor, "*b 4"]
) -> Float[Tensor, "*b 16"]:
    """Return the encoder's camera input: camera_to_world[:3, :4] row by row, fx, fy, cx, cy."""
    return torch.cat([camera_to_world[..., :3, :].flatten(-2), intrinsics], dim=-1)


class CameraViT(nn.Module):
    """Encoder from images with their cameras to tokens: the model's `encoder`."""

    mean_std: Tensor

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.model = _ViT(config)
        self.camera_embedder = nn.Sequential(
            nn.Linear(CAMERA_NUMBERS, config.width),
            nn.SiLU(),
            nn.Linear(config.width, config.width),
        )
        mean_std = torch.tensor([_IMAGENET_MEAN, _IMAGENET_STD])[:, :, None, None]
        self.register_buffer("mean_std", mean_std, persistent=False)

    def recompute_layers(self) -> None:
        """Turn on activation checkpointing of each layer, to save memory."""
        self.model.encoder.recompute = True

    def forward(
        self, images: Float[Tensor, "n 3 h w"], cameras: Float[Tensor, "n 16"]
    ) -> Float[Tensor, "n t c"]:
        """Return the tokens of RGB images in [0, 1]: class token, then the patches row by row.

        Raises ValueError if a side of the images is not a multiple of the patch size.
        """
        mean, std = self.mean_std
        dtype = self.model.embeddings.cls_token.dtype
        return self.model(
            ((images - mean) / std).to(dtype), self.camera_embedder(cameras.to(dtype))
        )


class _ViT(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Layers(config)
        self.layernorm = nn.LayerNorm(config.width, eps=_NORM_EPS)
        self.apply(_initialise)

    def forward(self, images: Tensor, camera: Tensor) -> Tensor:
        return self.layernorm(self.encoder(self.embeddings(images), camera))


class _Layers(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.recompute = False

    def forward(self, x: Tensor, camera: Tensor) -> Tensor:
        for layer in self.layer:
            x = recompute_in_backward(layer, self.recompute)(x, camera)
        return x


class _Embeddings(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self._patch, self._side = config.patch_size, config.position_side
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.position_embeddings = nn.Parameter(torch.empty(1, 1 + self._side**2, config.width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.position_embeddings, std=0.02)
        projection = nn.Conv2d(3, config.width, kernel_size=self._patch, stride=self._patch)
        self.patch_embeddings = nn.ModuleDict({"projection": projection})

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height % self._patch or width % self._patch:
            raise ValueError(
                f"images of {height}x{width} do not divide into patches of {self._patch} pixels"
            )
        patches = self.patch_embeddings["projection"](images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        return tokens + self.positions(height // self._patch, width // self._patch)

    def positions(self, rows: int, columns: int) -> Float[Tensor, "1 t c"]:
        """Return the position table, resized bicubically to a grid of patches.

        The published weights were trained with a scale factor of (patches + 0.1) / side, which
        PyTorch also uses for the sampling coordinates; with `size=` they would differ.
        """
        side = self._side
        if rows == columns == side:
            return self.position_embeddings
        class_token, table = self.position_embeddings.split([1, side**2], dim=1)
        grid = table.unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
        scale = ((rows + 0.1) / side, (columns + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat([class_token, grid.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


class _Layer(nn.Module):
    """Pre-norm block whose two norms are shifted and scaled by the camera, without gates."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.width
        self.attention = _Attention(width, config.num_heads)
        self.intermediate = _dense(width, config.mlp_width)
        self.output = _dense(config.mlp_width, width)
        self.layernorm_before = nn.LayerNorm(width, eps=_NORM_EPS)
        self.layernorm_after = nn.LayerNorm(width, eps=_NORM_EPS)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 4 * width))

    def forward(self, x: Tensor, camera: Tensor) -> Tensor:
        modulation = self.adaLN_modulation(camera)[:, None]
        shift_attention, scale_attention, shift_mlp, scale_mlp = modulation.chunk(4, dim=-1)
        h = self.layernorm_before(x) * (1 + scale_attention) + shift_attention
        x = x + self.attention(h)
        h = self.layernorm_after(x) * (1 + scale_mlp) + shift_mlp
        return x + self.output["dense"](F.gelu(self.intermediate["dense"](h)))


class _Attention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.attention = nn.ModuleDict(
            {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        )
        self.output = _dense(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            self.attention[name](x).unflatten(-1, (self._num_heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.output["dense"](attended.transpose(1, 2).flatten(2))


def _dense(inputs: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, outputs)})


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, _Layer):
        # Zero modulation: training starts from the function of the pretrained encoder.
        # `apply` reaches a layer after its parts, so this overrides their initial values.
        for parameter in module.adaLN_modulation.parameters():
            nn.init.zeros_(parameter)
