"""The large reconstruction model: a few views of an object in, its triplanes and images out.

InstantMesh (arXiv 2404.07191). The attributes `encoder`, `transformer` and `synthesizer` give the
state dict exactly the keys of the published checkpoints (without their prefix `lrm_generator.`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from core.config import Config, merge
from core.errors import BadInput
from train.models.lrm.mesh import Geometry, MeshConfig, MeshSynthesizer
from train.models.lrm.mesh_render import MeshViews
from train.models.lrm.nerf import NerfConfig, NerfSynthesizer, RenderedViews
from train.models.lrm.rays import SamplePlaces, Window
from train.models.lrm.triplane import TriplaneConfig, TriplaneTransformer
from train.models.lrm.vit import CameraViT, ViTConfig, camera_vector

__all__ = [
    "LRM",
    "MESH_PRESETS",
    "PRESETS",
    "LRMConfig",
    "MeshLRM",
    "MeshLRMConfig",
    "NerfLRM",
    "NerfLRMConfig",
    "mesh_preset",
    "nerf_preset",
    "shared_preset",
]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Table 1 of the paper; the fields' defaults are `base`.
    "base": {},
    "large": {
        "transformer": {"num_layers": 16, "channels": 80},
        "nerf": {"samples_per_ray": 128},
    },
    # One GPU: the encoder is DINO ViT-S/16, so that its published weights fit.
    "small": {
        "encoder": {"width": 384, "num_heads": 6, "mlp_width": 1536},
        "transformer": {"num_layers": 4, "width": 256, "num_heads": 8, "channels": 32},
        "nerf": {"samples_per_ray": 64},
    },
    # A CPU: learns a few objects in minutes.
    "tiny": {
        "encoder": {
            "num_layers": 2,
            "width": 64,
            "num_heads": 4,
            "mlp_width": 256,
            "patch_size": 8,
            "position_side": 8,
        },
        "transformer": {
            "num_layers": 2,
            "width": 96,
            "num_heads": 4,
            "low_resolution": 16,
            "high_resolution": 32,
            "channels": 8,
        },
        "nerf": {"decoder_width": 32, "samples_per_ray": 32},
        "image_size": 64,
    },
}
"""Named sizes: values for `NerfLRMConfig.load` laid over its defaults."""

_MESHES: Mapping[str, Mapping[str, Any]] = {
    "base": {},
    "large": {},
    "small": {"grid_resolution": 96},
    "tiny": {"decoder_width": 32, "grid_resolution": 32},
}
MESH_PRESETS: Mapping[str, Mapping[str, Any]] = {
    name: {key: value for key, value in sizes.items() if key != "nerf"} | {"mesh": _MESHES[name]}
    for name, sizes in PRESETS.items()
}
"""The same sizes for stage 2, which starts from stage 1: values for `MeshLRMConfig.load`."""


class LRMConfig(Config):
    """From views to triplanes: what all stages share; the defaults are InstantMesh base."""

    encoder: ViTConfig = ViTConfig()
    transformer: TriplaneConfig = TriplaneConfig()
    image_size: PositiveInt = 320
    """Side of the input views in pixels, to which they are resized before they come here."""

    @model_validator(mode="after")
    def _image_divides_into_patches(self) -> "LRMConfig":
        if self.image_size % self.encoder.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of the encoder's patch_size "
                f"{self.encoder.patch_size}"
            )
        return self


class NerfLRMConfig(LRMConfig):
    """The stage-1 model."""

    nerf: NerfConfig = NerfConfig()


class MeshLRMConfig(LRMConfig):
    """The stage-2 model."""

    mesh: MeshConfig = MeshConfig()


def nerf_preset(name: str, changes: Mapping[str, Any] = MappingProxyType({})) -> NerfLRMConfig:
    """The stage-1 model of a preset, with `changes` laid over it. Raises BadInput."""
    return NerfLRMConfig.load(_sizes(PRESETS, name, changes), where="model")


def mesh_preset(name: str, changes: Mapping[str, Any] = MappingProxyType({})) -> MeshLRMConfig:
    """The stage-2 model of a preset, with `changes` laid over it. Raises BadInput."""
    return MeshLRMConfig.load(_sizes(MESH_PRESETS, name, changes), where="model")


def shared_preset(name: str, changes: Mapping[str, Any]) -> LRMConfig:
    """What the models of both stages have in common. Raises BadInput."""
    sizes = _sizes(PRESETS, name, {k: v for k, v in changes.items() if k in LRMConfig.model_fields})
    return LRMConfig.load({k: v for k, v in sizes.items() if k in LRMConfig.model_fields})


def _sizes(
    presets: Mapping[str, Mapping[str, Any]], name: str, changes: Mapping[str, Any]
) -> Mapping[str, Any]:
    if name not in presets:
        raise BadInput(f"model preset {name!r} does not exist: choose from {', '.join(presets)}")
    return merge(presets[name], changes)


class LRM(nn.Module):
    """Views to triplanes; a stage's model adds the `synthesizer` that shows them.

    New weights are drawn from torch's global generator: seed it before.
    """

    def __init__(self, config: LRMConfig) -> None:
        super().__init__()
        self.encoder = CameraViT(config.encoder)
        self.transformer = TriplaneTransformer(config.transformer, config.encoder.width)

    def recompute_layers(self) -> None:
        """Keep only what enters each transformer layer, for a backward pass in less memory."""
        self.encoder.recompute_layers()
        self.transformer.recompute_layers()

    def forward_planes(
        self,
        images: Float[Tensor, "b v 3 h w"],
        camera_to_world: Float[Tensor, "b v 4 4"],
        intrinsics: Float[Tensor, "b v 4"],
    ) -> Float[Tensor, "b 3 c r r"]:
        """Triplanes from any number of views: RGB in [0, 1] on white, with their cameras."""
        cameras = camera_vector(camera_to_world, intrinsics)
        tokens = self.encoder(images.flatten(0, 1), cameras.flatten(0, 1))
        return self.transformer(tokens.unflatten(0, images.shape[:2]).flatten(1, 2))


class NerfLRM(LRM):
    """Stage 1: the triplanes are a radiance field, rendered by volume rendering."""

    def __init__(self, config: NerfLRMConfig) -> None:
        super().__init__(config)
        self.synthesizer = NerfSynthesizer(config.nerf, config.transformer.channels)

    def render(
        self,
        planes: Float[Tensor, "b 3 c r r"],
        camera_to_world: Float[Tensor, "b v 4 4"],
        intrinsics: Float[Tensor, "b v 4"],
        size: tuple[int, int],
        window: Window | None = None,
        randomness: torch.Generator | SamplePlaces | None = None,
    ) -> RenderedViews:
        """Views of triplanes; see `NerfSynthesizer.forward`."""
        return self.synthesizer(planes, camera_to_world, intrinsics, size, window, randomness)

    def forward(
        self,
        images: Float[Tensor, "b v 3 h w"],
        camera_to_world: Float[Tensor, "b v 4 4"],
        intrinsics: Float[Tensor, "b v 4"],
        render_camera_to_world: Float[Tensor, "b m 4 4"],
        render_intrinsics: Float[Tensor, "b m 4"],
        size: tuple[int, int],
        window: Window | None = None,
        randomness: torch.Generator | SamplePlaces | None = None,
    ) -> RenderedViews:
        """Reconstruct from v views and render m others: the step that training differentiates."""
        planes = self.forward_planes(images, camera_to_world, intrinsics)
        return self.render(
            planes, render_camera_to_world, render_intrinsics, size, window, randomness
        )


class MeshLRM(LRM):
    """Stage 2: the triplanes are a mesh, rendered by rasterization."""

    def __init__(self, config: MeshLRMConfig) -> None:
        super().__init__(config)
        self.synthesizer = MeshSynthesizer(config.mesh, config.transformer.channels)

    def forward(
        self,
        images: Float[Tensor, "b v 3 h w"],
        camera_to_world: Float[Tensor, "b v 4 4"],
        intrinsics: Float[Tensor, "b v 4"],
        render_camera_to_world: Float[Tensor, "b m 4 4"],
        render_intrinsics: Float[Tensor, "b m 4"],
        size: tuple[int, int],
    ) -> tuple[MeshViews, Geometry]:
        """Reconstruct from v views and render m others: the step that training differentiates."""
        planes = self.forward_planes(images, camera_to_world, intrinsics)
        return self.synthesizer(planes, render_camera_to_world, render_intrinsics, size)
