"""Pixel2Mesh (Wang et al., ECCV 2018, arXiv 1804.01654): from one view to a triangle mesh.

Three blocks of graph convolutions move the vertices of an ellipsoid, at 156, 618 and 2466 vertices,
from features of the view at the places where the vertices are seen. The attribute names give the
state dict the keys of the published checkpoints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from core.config import Config, PositiveInt, Side, merge
from core.errors import BadInput
from train.models.pixel2mesh.feature_pooling import PublishedPooling, pool_features, project
from train.models.pixel2mesh.graph_convolution import GraphBlock, GraphConvolution
from train.models.pixel2mesh.image_encoders import WIDTHS, VggEncoder
from train.models.pixel2mesh.resnet import ResNetEncoder
from train.models.pixel2mesh.sparse_matrix import SparseMatrix
from train.models.pixel2mesh.template_mesh import (
    CENTRE,
    MAX_VERTICES,
    MeshLevel,
    Template,
    ellipsoid,
    mesh_levels,
)
from train.models.recompute import recompute_in_backward

__all__ = ["PRESETS", "Deformation", "Pixel2Mesh", "Pixel2MeshConfig", "pixel2mesh_preset"]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The released TensorFlow model, and that of the migrated checkpoint; the fields' defaults.
    "vgg": {},
    # The best published numbers.
    "resnet": {"encoder": "resnet", "encoder_width": 64, "hidden": 192, "last_hidden": 192},
    # For a CPU: it learns a few objects in half an hour. Its final mesh has 642 vertices.
    "tiny": {
        "encoder_width": 8,
        "hidden": 64,
        "last_hidden": 32,
        "image_size": 64,
        "num_vertices": 42,
    },
}
"""Named model sizes: values for `Pixel2MeshConfig.load` that override its defaults."""

_COORDINATES = 3
_LAYERS_TO_POINTS = ("gcns.0.conv2.", "gcns.1.conv2.", "gconv.")
"""Prefixes of the keys of the layers that compute each block's points."""


class Pixel2MeshConfig(Config):
    """Sizes of the model: the released TensorFlow one."""

    encoder: Literal["vgg", "resnet"] = "vgg"
    """Image network: the released one of 18 convolutions, or ResNet-50."""
    encoder_width: PositiveInt = 16
    """Channels of the image network's first layers, which it doubles step by step: 16 in the
    published network of 18 convolutions, 64 in ResNet-50."""
    hidden: PositiveInt = 256
    """Width of the graph convolutions."""
    last_hidden: PositiveInt = 128
    """Width of the features from which the last convolution computes the final mesh."""
    image_size: Annotated[Side, Field(ge=32)] = 224
    """Side of the input view in pixels; the data loader resizes it to it."""
    num_vertices: Annotated[int, Field(ge=12, le=MAX_VERTICES)] = 156
    """Vertices of the ellipsoid; the final mesh has 16 n - 30. A template file replaces it."""
    published: PublishedPooling | None = None
    """Convention of published weights: `align_corners` for those that the PyTorch port trained,
    `half_pixel` for what that port does today, `tensorflow` for the migrated checkpoint; None, to
    train a model: exact positions in the view, and blocks that predict displacements."""


def pixel2mesh_preset(
    name: str, changes: Mapping[str, Any] = MappingProxyType({})
) -> Pixel2MeshConfig:
    """Return the configuration of a preset, overridden by `changes`.

    Raises BadInput if the preset is unknown or a change is invalid.
    """
    if name not in PRESETS:
        raise BadInput(f"model preset {name!r} does not exist: choose from {', '.join(PRESETS)}")
    return Pixel2MeshConfig.load(merge(PRESETS[name], changes), where="model")


@dataclass(frozen=True, kw_only=True, eq=False)
class Deformation:
    """The vertices of each block, in the camera's frame and in the order of its mesh level."""

    meshes: tuple[Float[Tensor, "b _ 3"], ...]
    """Results; the last is the reconstruction."""
    before: tuple[Float[Tensor, "b _ 3"], ...]
    """The same vertices before the block: the template, then the unpooled result before."""


class Pixel2Mesh(nn.Module):
    """The network from one view with its intrinsics to meshes in the camera's frame.

    Blocks work in the network's frame, whose origin is the template's centre, except for the
    migrated checkpoint: its frame is the camera's. Initial weights are drawn from torch's global
    generator, which the caller seeds.

    A block predicts the displacement of its input points, and the layers that do are initially 0:
    training starts from the template with its outside outside. Published weights predict
    coordinates instead. From random weights these form a random surface, often turned inside out,
    and no term of the loss turns it back.
    """

    init_pts: Tensor
    """The template's vertices in the network's frame."""

    def __init__(self, config: Pixel2MeshConfig, template: Template | None = None) -> None:
        """Create the model for a template; by default the ellipsoid of `config`."""
        super().__init__()
        self.config = config
        self.template = template or ellipsoid(config.num_vertices)
        self.nn_encoder = _encoder(config)
        self.levels = nn.ModuleList(mesh_levels(self.template))
        """The three mesh levels (`MeshLevel`), on the model's device."""
        pooled = _COORDINATES + sum(self.nn_encoder.channels)
        outputs = (_COORDINATES, _COORDINATES, config.last_hidden)
        self.gcns = nn.ModuleList(
            GraphBlock(pooled + (config.hidden if block else 0), config.hidden, width)
            for block, width in enumerate(outputs)
        )
        self.gconv = GraphConvolution(config.last_hidden, _COORDINATES)
        self.offset = (0.0, 0.0, 0.0) if config.published == "tensorflow" else CENTRE
        """Origin of the network's frame in the camera's."""
        points = torch.tensor(self.template.vertices - self.offset, dtype=torch.float32)
        self.register_buffer("init_pts", points)
        if config.published is None:
            # Marks the weights: published ones have the same keys, but predict coordinates.
            self.register_buffer("predicts_displacements", torch.ones(1))
        self._recompute = False
        self._displaces = config.published is None
        if self._displaces:
            for key, parameter in self.named_parameters():
                if key.startswith(_LAYERS_TO_POINTS):
                    nn.init.zeros_(parameter)

    def _apply(self, fn: Any, recurse: bool = True) -> "Pixel2Mesh":
        """Apply `fn`, but keep the template's vertices in float32."""
        points = self.init_pts
        super()._apply(fn, recurse)
        self.init_pts = points.to(self.init_pts.device)
        return self

    def recompute_layers(self) -> None:
        """Turn on activation checkpointing of the encoder and of each block, to save memory."""
        self._recompute = True

    def forward(
        self, images: Float[Tensor, "b 3 s s"], intrinsics: Float[Tensor, "b 4"]
    ) -> Deformation:
        """Return the meshes of views (RGB in [0, 1] on white) with their intrinsics."""
        encode = recompute_in_backward(self.nn_encoder, self._recompute)
        return self.deform(encode(images.to(self.gconv.bias.dtype)), intrinsics)

    def deform(
        self, maps: Sequence[Float[Tensor, "b _ _ _"]], intrinsics: Float[Tensor, "b 4"]
    ) -> Deformation:
        """Return the meshes from the image network's maps of features.

        It computes in float32, regardless of the type of the maps and parameters: steps of bfloat16
        are 3 % of an edge, which makes a rough surface.
        """
        maps = [features.float() for features in maps]
        points = self.init_pts.expand(len(intrinsics), -1, -1)
        hidden: Tensor | None = None
        unpooling: SparseMatrix | None = None
        meshes, before = [], []
        level: MeshLevel
        for level, block in zip(self.levels, self.gcns, strict=True):  # type: ignore[assignment]
            # Features are pooled at the result of the block before; new vertices get their mean.
            features = self._features(maps, points, intrinsics, hidden)
            if unpooling is not None:
                points = unpooling(points)
            before.append(points)
            is_last = block is self.gcns[-1]
            run = recompute_in_backward(block, self._recompute)
            result, hidden = run(features, level.support, unpooling)
            if is_last:
                result = self.gconv(F.relu(result), level.support)
            points = points + result if self._displaces else result
            meshes.append(points)
            unpooling = level.unpooling
        offset = points.new_tensor(self.offset)
        return Deformation(
            meshes=tuple(mesh + offset for mesh in meshes),
            before=tuple(points + offset for points in before),
        )

    def _features(
        self,
        maps: Sequence[Float[Tensor, "b _ _ _"]],
        points: Float[Tensor, "b v 3"],
        intrinsics: Float[Tensor, "b 4"],
        hidden: Float[Tensor, "b v c"] | None,
    ) -> Float[Tensor, "b v f"]:
        """Return coordinates, pooled features and hidden features."""
        seen_at = project(points + points.new_tensor(self.offset), intrinsics)
        config, grids = self.config, self.nn_encoder.grids
        pooled = pool_features(maps, grids, seen_at, config.image_size, config.published)
        parts = [points, pooled] if hidden is None else [points, pooled, hidden]
        return torch.cat(parts, dim=-1)


def _encoder(config: Pixel2MeshConfig) -> VggEncoder | ResNetEncoder:
    if config.encoder == "resnet":
        return ResNetEncoder(config.encoder_width)
    widths = [config.encoder_width * 2**group for group in range(len(WIDTHS))]
    return VggEncoder(widths, "tensorflow" if config.published == "tensorflow" else "symmetric")
