"""The large reconstruction model of InstantMesh (arXiv 2404.07191): from views to triplanes.

With the attribute names `encoder`, `transformer` and `synthesizer`, the state dict has exactly the
keys of the published checkpoints without their prefix `lrm_generator.`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from core.config import Config, Side, merge
from core.errors import BadInput
from train.models.lrm.mesh import Geometry, MeshConfig, MeshSynthesizer
from train.models.lrm.mesh_render import MeshViews
from train.models.lrm.nerf import NerfConfig, NerfSynthesizer, RenderedViews
from train.models.lrm.rays import SampleJitter, Window
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
    # For one GPU. The encoder is DINO ViT-S/16, so that its published weights fit.
    "small": {
        "encoder": {"width": 384, "num_heads": 6, "mlp_width": 1536},
        "transformer": {"num_layers": 4, "width": 256, "num_heads": 8, "channels": 32},
        "nerf": {"samples_per_ray": 64},
    },
    # For a CPU: it learns a few objects in minutes.
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
"""Named model sizes: values for `NerfLRMConfig.load` that override its defaults."""

_MESH_SIZES: Mapping[str, Mapping[str, Any]] = {
    "base": {},
    "large": {},
    "small": {"grid_resolution": 96},
    "tiny": {"decoder_width": 32, "grid_resolution": 32},
}
MESH_PRESETS: Mapping[str, Mapping[str, Any]] = {
    name: {key: value for key, value in sizes.items() if key != "nerf"}
    | {"mesh": _MESH_SIZES[name]}
    for name, sizes in PRESETS.items()
}
"""The same sizes for stage 2, which starts from stage-1 weights: for `MeshLRMConfig.load`."""


class LRMConfig(Config):
    """Sizes of the part that both stages share, from views to triplanes: InstantMesh base."""

    encoder: ViTConfig = ViTConfig()
    transformer: TriplaneConfig = TriplaneConfig()
    image_size: Side = 320
    """Side of the input views in pixels; the data loader resizes them to it."""

    @model_validator(mode="after")
    def _image_divides_into_patches(self) -> "LRMConfig":
        if self.image_size % self.encoder.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of the encoder's patch_size "
                f"{self.encoder.patch_size}"
            )
        return self


class NerfLRMConfig(LRMConfig):
    """Sizes of the stage-1 model."""

    nerf: NerfConfig = NerfConfig()


class MeshLRMConfig(LRMConfig):
    """Sizes of the stage-2 model."""

    mesh: MeshConfig = MeshConfig()


def nerf_preset(name: str, changes: Mapping[str, Any] = MappingProxyType({})) -> NerfLRMConfig:
    """Return the stage-1 configuration of a preset, overridden by `changes`.

    Raises BadInput if the preset is unknown or a change is invalid.
    """
    return NerfLRMConfig.load(_sizes(PRESETS, name, changes), where="model")


def mesh_preset(name: str, changes: Mapping[str, Any] = MappingProxyType({})) -> MeshLRMConfig:
    """Return the stage-2 configuration of a preset, overridden by `changes`.

    Raises BadInput if the preset is unknown or a change is invalid.
    """
    return MeshLRMConfig.load(_sizes(MESH_PRESETS, name, changes), where="model")


def shared_preset(name: str, changes: Mapping[str, Any]) -> LRMConfig:
    """Return the part of a preset's configuration that both stages share.

    Raises BadInput if the preset is unknown or a change is invalid.
    """
    sizes = _sizes(PRESETS, name, {k: v for k, v in changes.items() if k in LRMConfig.model_fields})
    return LRMConfig.load({k: v for k, v in sizes.items() if k in LRMConfig.model_fields})


def _sizes(
    presets: Mapping[str, Mapping[str, Any]], name: str, changes: Mapping[str, Any]
) -> Mapping[str, Any]:
    if name not in presets:
        raise BadInput(f"model preset {name!r} does not exist: choose from {', '.join(presets)}")
    return merge(presets[name], changes)


class LRM(nn.Module):
    """Views to triplanes; the model of each stage adds the `synthesizer` that renders them.

    Initial weights are drawn from torch's global generator, which the caller seeds.
    """

    def __init__(self, config: LRMConfig) -> None:
        super().__init__()
        self.encoder = CameraViT(config.encoder)
        self.transformer = TriplaneTransformer(config.transformer, config.encoder.width)

    def recompute_layers(self) -> None:
        """Turn on activation checkpointing of each transformer layer, to save memory."""
        self.encoder.recompute_layers()
        self.transformer.recompute_layers()

    def forward_planes(
        self,
        images: Float[Tensor, "b v 3 h w"],
        camera_to_world: Float[Tensor, "b v 4 4"],
        intrinsics: Float[Tensor, "b v 4"],
    ) -> Float[Tensor, "b 3 c r r"]:
        """Return triplanes from v views (RGB in [0, 1] on white) with their cameras."""
        cameras = camera_vector(camera_to_world, intrinsics)
        tokens = self.encoder(images.flatten(0, 1), cameras.flatten(0, 1))
        return self.transformer(tokens.unflatten(0, images.shape[:2]).flatten(1, 2))


class NerfLRM(LRM):
    """Stage-1 model: the triplanes encode a radiance field, rendered by volume rendering."""

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
        randomness: torch.Generator | SampleJitter | None = None,
    ) -> RenderedViews:
        """Render views of triplanes; see `NerfSynthesizer.forward`."""
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
        randomness: torch.Generator | SampleJitter | None = None,
    ) -> RenderedViews:
        """Reconstruct an object from v views and render m other views, as training does."""
        planes = self.forward_planes(images, camera_to_world, intrinsics)
        return self.render(
            planes, render_camera_to_world, render_intrinsics, size, window, randomness
        )


class MeshLRM(LRM):
    """Stage-2 model: the triplanes encode a mesh, rendered by rasterization."""

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
        """Reconstruct an object from v views and render m other views, as training does."""
        planes = self.forward_planes(images, camera_to_world, intrinsics)
        return self.synthesizer(planes, render_camera_to_world, render_intrinsics, size)
