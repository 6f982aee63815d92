"""Mesh reconstruction with a trained LRM: stage 2, or stage 1 by the level set of its density."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.errors import BadInput
from train.checkpoints.initial_weights import model_settings, run_weights
from train.models.lrm.lrm import (
    LRM,
    MESH_PRESETS,
    PRESETS,
    MeshLRM,
    NerfLRM,
    mesh_preset,
    nerf_preset,
)
from train.models.lrm.mesh import Geometry, MeshConfig, MeshSynthesizer
from train.models.lrm.published_weights import check_state, load_state
from train.models.weight_files.state_dicts import read_state

__all__ = [
    "NERF_RESOLUTION",
    "LRMKind",
    "Reconstruction",
    "Reconstructor",
    "Shape",
    "open_reconstructor",
]

LRMKind = Literal["nerf", "mesh"]
NERF_RESOLUTION = 256
"""Default number of cubes along a side of the grid that turns a density into a mesh."""
_SUFFIXES = (".safetensors", ".ckpt")
_DECODERS: Mapping[str, LRMKind] = MappingProxyType(
    {"synthesizer.decoder.net.": "nerf", "synthesizer.decoder.net_sdf.": "mesh"}
)
_PREFIX = "lrm_generator."


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """The mesh of one object in the world axes of its cameras (z up), and its colours."""

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    """Counter-clockwise seen from outside."""
    colour: Callable[[Float[np.ndarray, "k 3"]], Float[np.ndarray, "k 3"]]
    """Returns the sRGB colour in [0, 1] of world points."""


class Reconstruction:
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


class Reconstructor:
    """A model in eval mode, and the FlexiCubes grid that turns its triplanes into a mesh.

    The stage-1 mesh is the level set at density 10, the one that stage 2 starts from (equations 2
    and 3 of InstantMesh).
    """

    def __init__(self, model: NerfLRM | MeshLRM, grid: MeshSynthesizer, image_size: int) -> None:
        self.image_size = image_size
        """Side in pixels of the input views."""
        self._model, self._grid = model.eval(), grid.eval()

    @torch.no_grad()
    def reconstruct(
        self,
        images: Float[Tensor, "1 v 3 s s"],
        camera_to_world: Float[Tensor, "1 v 4 4"],
        intrinsics: Float[Tensor, "1 v 4"],
    ) -> Reconstruction:
        """Reconstruct an object from views (RGB in [0, 1] on white) with their cameras."""
        device = next(self._model.parameters()).device
        inputs = (tensor.to(device) for tensor in (images, camera_to_world, intrinsics))
        return Reconstruction(self._model, self._grid, self._model.forward_planes(*inputs))

    def to(self, device: torch.device) -> "Reconstructor":
        """Move the model to a device, and return it."""
        self._model.to(device)
        self._grid.to(device)
        return self


def open_reconstructor(
    kind: LRMKind,
    source: Path,
    *,
    preset: str | None = None,
    changes: Mapping[str, Any] = MappingProxyType({}),
    resolution: int | None = None,
) -> Reconstructor:
    """Load a model from a run folder, a checkpoint folder or a weight file.

    A run and a checkpoint store the model's sizes. For a weight file they are those of `preset`
    overridden by `changes`; without a preset, the first preset that fits is used. `resolution` is
    the grid resolution for stage 1; stage 2 has its own. Raises BadInput if the weights cannot be
    read or do not fit.
    """
    if kind == "mesh" and resolution is not None:
        raise BadInput(
            "--mesh: the grid resolution is part of the mesh model; --resolution is for --nerf only"
        )
    state, name, preset, changes = _read(source, preset, changes)
    _check_kind(state, kind, name)
    model_class, make_sizes, presets = _STAGES[kind]
    if preset is None:
        preset = _find_preset(kind, state, name, changes)
    if preset not in presets:
        make_sizes(preset)  # raises BadInput
    sizes = make_sizes(preset, changes)
    # Without memory first: a file may state sizes that no machine has room for.
    with torch.device("meta"):
        check_state(model_class(sizes), state, "instantmesh", source=name)
    model = model_class(sizes)
    load_state(model, state, "instantmesh", source=name)
    if isinstance(model, MeshLRM):
        return Reconstructor(model, model.synthesizer, sizes.image_size)
    grid = _density_grid(model, sizes, resolution or NERF_RESOLUTION, name)
    return Reconstructor(model, grid, sizes.image_size)


_STAGES: Mapping[str, Any] = {
    "nerf": (NerfLRM, nerf_preset, PRESETS),
    "mesh": (MeshLRM, mesh_preset, MESH_PRESETS),
}


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


def _read(
    source: Path, preset: str | None, changes: Mapping[str, Any]
) -> tuple[dict[str, Tensor], str, str | None, Mapping[str, Any]]:
    """Return the tensors, the name of their source, and the preset and changes of the model."""
    if source.is_dir():
        if preset is not None or changes:
            raise BadInput(
                f"{source}: the run stores the model's sizes; leave --preset and --model out"
            )
        checkpoint, state = run_weights(source)
        return state, checkpoint.uri, *model_settings(checkpoint)
    if source.suffix not in _SUFFIXES:
        raise BadInput(
            f"{source}: no such checkpoint; give a run folder, a checkpoint folder or a "
            f"{' or '.join(_SUFFIXES)} file"
        )
    return read_state(source), str(source), preset, changes


def _check_kind(state: Mapping[str, Tensor], kind: LRMKind, name: str) -> None:
    """Raise BadInput if the state belongs to a model of the other stage."""
    for prefix, other in _DECODERS.items():
        if other != kind and any(key.removeprefix(_PREFIX).startswith(prefix) for key in state):
            stage = 1 if other == "nerf" else 2
            raise BadInput(f"{name}: is a model of stage {stage}: give it as --{other}")


def _find_preset(
    kind: LRMKind, state: dict[str, Tensor], name: str, changes: Mapping[str, Any]
) -> str:
    """Return the first preset with the tensor shapes of the state. Raises BadInput if none fits."""
    model_class, make_sizes, presets = _STAGES[kind]
    problems = {}
    for preset in presets:
        with torch.device("meta"):
            model: LRM = model_class(make_sizes(preset, changes))
        try:
            check_state(model, state, "instantmesh", source=name)
        except BadInput as error:
            problems[preset] = str(error)
        else:
            return preset
    raise BadInput(
        f"{name}: fits none of the presets {', '.join(presets)}; give the --preset of the training "
        "run, and --model with the settings that differ from it"
    )
