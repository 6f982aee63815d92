"""Mesh reconstruction with a trained LRM: stage 2, or stage 1 by the level set of its density."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import BadInput
from train.inference.family import Family, ModelOptions
from train.inference.reconstruction import Reconstruction, Reconstructor, Shape
from train.inference.stored_models import build_model, read_model
from train.models.lrm.lrm import (
    MESH_PRESETS,
    PRESETS,
    MeshLRM,
    NerfLRM,
    mesh_preset,
    nerf_preset,
)
from train.models.lrm.mesh import Geometry, MeshConfig, MeshSynthesizer
from train.models.lrm.published_weights import LRM_WEIGHTS, load_state

__all__ = ["NERF_RESOLUTION", "LRMReconstruction", "LRMReconstructor", "open_mesh", "open_nerf"]

NERF_RESOLUTION = 256
"""Default number of cubes along a side of the grid that turns a density into a mesh."""


class LRMReconstruction(Reconstruction):
    """A model's reconstruction of one object: its mesh, and renderings of it."""

    def __init__(
        self, model: NerfLRM | MeshLRM, grid: MeshSynthesizer, planes: Float[Tensor, "1 3 c r r"]
    ) -> None:
        self._model, self._grid, self._planes = model, grid, planes

    @cached_property
    @torch.no_grad()
    def shape(self) -> Shape:
        """The mesh. Raises BadInput if the model predicts no surface."""
        surface = self._geometry.surfaces[0]
        if bool(self._geometry.repaired[0]) or not len(surface.faces):
            raise BadInput(
                "empty mesh: the model predicts no surface; train it longer, or give views of a "
                "single object on a white background"
            )
        return Shape(
            vertices=surface.vertices.cpu().numpy(),
            faces=surface.faces.cpu().numpy(),
            colour=self._colour,
        )

    @torch.no_grad()
    def render(
        self,
        camera_to_world: Float[Tensor, "1 v 4 4"],
        intrinsics: Float[Tensor, "1 v 4"],
        size: tuple[int, int],
    ) -> tuple[Float[Tensor, "v 3 h w"], Float[Tensor, "v 1 h w"]]:
        """Render views: by volume rendering in stage 1, by rasterizing the mesh in stage 2.

        Returns RGB on white and alpha, both in [0, 1] and on the CPU. `size` is (height, width).
        """
        device = self._planes.device
        cameras = camera_to_world.to(device), intrinsics.to(device)
        if isinstance(self._model, NerfLRM):
            views: Any = self._model.render(self._planes, *cameras, size)
        else:
            views = self._grid.render(self._planes, self._geometry, *cameras, size)
        return views.rgb[0].clamp(0, 1).cpu(), views.alpha[0].clamp(0, 1).cpu()

    @cached_property
    @torch.no_grad()
    def _geometry(self) -> Geometry:
        return self._grid.geometry(self._planes, centred=False)

    @torch.no_grad()
    def _colour(self, points: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "k 3"]:
        positions = torch.from_numpy(np.asarray(points, dtype=np.float32)).to(self._planes.device)
        return self._grid.colour(self._planes[0], positions).clamp(0, 1).cpu().numpy()


class LRMReconstructor(Reconstructor):
    """A model in eval mode, and the FlexiCubes grid that turns its triplanes into a mesh.

    The stage-1 mesh is the level set at density 10, the one that stage 2 starts from (equations 2
    and 3 of InstantMesh).
    """

    def __init__(
        self, family: Family, model: NerfLRM | MeshLRM, grid: MeshSynthesizer, image_size: int
    ) -> None:
        super().__init__(family, image_size)
        self._model, self._grid = model.eval(), grid.eval()

    @torch.no_grad()
    def reconstruct(
        self,
        images: Float[Tensor, "1 v 3 s s"],
        camera_to_world: Float[Tensor, "1 v 4 4"],
        intrinsics: Float[Tensor, "1 v 4"],
    ) -> LRMReconstruction:
        """Reconstruct an object from views (RGB in [0, 1] on white) with their cameras."""
        device = next(self._model.parameters()).device
        inputs = (tensor.to(device) for tensor in (images, camera_to_world, intrinsics))
        return LRMReconstruction(self._model, self._grid, self._model.forward_planes(*inputs))

    def to(self, device: torch.device) -> "LRMReconstructor":
        """Move the model to a device, and return it."""
        self._model.to(device)
        self._grid.to(device)
        return self


def open_nerf(family: Family, source: Path, options: ModelOptions) -> LRMReconstructor:
    """Open a model of stage 1; see `train.inference.families.open_model`.

    `options.resolution` is the grid resolution of the mesh.
    """
    model, sizes, where = _open(family, source, options, (NerfLRM, nerf_preset, PRESETS))
    grid = _density_grid(model, sizes, options.resolution or NERF_RESOLUTION, where)
    return LRMReconstructor(family, model, grid, sizes.image_size)


def open_mesh(family: Family, source: Path, options: ModelOptions) -> LRMReconstructor:
    """Open a model of stage 2; see `train.inference.families.open_model`."""
    model, sizes, _ = _open(family, source, options, (MeshLRM, mesh_preset, MESH_PRESETS))
    return LRMReconstructor(family, model, model.synthesizer, sizes.image_size)


def _open(
    family: Family, source: Path, options: ModelOptions, stage: tuple[Any, Any, Mapping[str, Any]]
) -> tuple[Any, Any, str]:
    """Return the model, its configuration, and the name of its source.

    `stage` has the class of the model, the function that makes its configuration, and its presets.
    """
    stored = read_model(family, source, options, LRM_WEIGHTS)
    model_class, make_sizes, presets = stage
    model, sizes = build_model(stored, presets, LRM_WEIGHTS, sizes=make_sizes, new=model_class)
    return model, sizes, stored.name


class _SynthesizerOnly(nn.Module):
    """A stage-2 synthesizer under its state-dict key, without the rest of the model."""

    def __init__(self, synthesizer: MeshSynthesizer) -> None:
        super().__init__()
        self.synthesizer = synthesizer


def _density_grid(model: NerfLRM, sizes: Any, resolution: int, name: str) -> MeshSynthesizer:
    """Return a stage-2 synthesizer with the decoder of stage 1; deformation and weights are 0."""
    config = MeshConfig(
        decoder_width=sizes.nerf.decoder_width,
        decoder_hidden_layers=sizes.nerf.decoder_hidden_layers,
        grid_resolution=resolution,
    )
    wrapper = _SynthesizerOnly(MeshSynthesizer(config, sizes.transformer.channels))
    decoder = {
        key: value for key, value in model.state_dict().items() if key.startswith("synthesizer.")
    }
    load_state(wrapper, decoder, "instantmesh", source=name)
    return wrapper.synthesizer
