"""A trained LRM that gives meshes: stage 2, or stage 1 through the surface of its density."""

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
from train.checkpoints.initial_weights import run_weights
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
from train.models.lrm.published_weights import check_state, load_state, read_weights

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
"""Cubes along a side of the grid on which a density becomes a mesh, if nothing else is said."""
_FILES = (".safetensors", ".ckpt")
_DECODERS: Mapping[str, LRMKind] = MappingProxyType(
    {"synthesizer.decoder.net.": "nerf", "synthesizer.decoder.net_sdf.": "mesh"}
)
_PREFIX = "lrm_generator."


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """The mesh of one object in the world of its cameras (z up), and its colours."""

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    """Counter-clockwise seen from outside."""
    colour: Callable[[Float[np.ndarray, "k 3"]], Float[np.ndarray, "k 3"]]
    """sRGB in [0, 1] of world points."""


class Reconstruction:
    """One object as a model sees it."""

    def __init__(
        self, model: NerfLRM | MeshLRM, grid: MeshSynthesizer, planes: Float[Tensor, "1 3 c r r"]
    ) -> None:
        self._model, self._grid, self._planes = model, grid, planes

    @cached_property
    @torch.no_grad()
    def shape(self) -> Shape:
        """The mesh. Raises BadInput if the model sees no surface."""
        surface = self._geometry.surfaces[0]
        if bool(self._geometry.repaired[0]) or not len(surface.faces):
            raise BadInput(
                "empty mesh: the model puts no surface anywhere; it was not trained long enough, "
                "or these are no views of one object on white"
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
        """Views by the model's own renderer: volume rendering of stage 1, the mesh of stage 2.

        RGB on white and alpha, both in [0, 1], on the CPU.
        """
        device = self._planes.device
        cameras = camera_to_world.to(device), intrinsics.to(device)
        if isinstance(self._model, NerfLRM):
            shown: Any = self._model.render(self._planes, *cameras, size)
        else:
            shown = self._grid.render(self._planes, self._geometry, *cameras, size)
        return shown.rgb[0].clamp(0, 1).cpu(), shown.alpha[0].clamp(0, 1).cpu()

    @cached_property
    @torch.no_grad()
    def _geometry(self) -> Geometry:
        return self._grid.geometry(self._planes, centred=False)

    @torch.no_grad()
    def _colour(self, points: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "k 3"]:
        asked = torch.from_numpy(np.asarray(points, dtype=np.float32)).to(self._planes.device)
        return self._grid.colour(self._planes[0], asked).clamp(0, 1).cpu().numpy()


class Reconstructor:
    """A model in evaluation mode, and the FlexiCubes grid that makes its triplanes a mesh.

    The mesh of stage 1 lies where its density is 10, as where stage 2 starts (equations 2 and 3).
    """

    def __init__(self, model: NerfLRM | MeshLRM, grid: MeshSynthesizer, image_size: int) -> None:
        self.image_size = image_size
        """Side of the views that it takes."""
        self._model, self._grid = model.eval(), grid.eval()

    @torch.no_grad()
    def reconstruct(
        self,
        images: Float[Tensor, "1 v 3 s s"],
        camera_to_world: Float[Tensor, "1 v 4 4"],
        intrinsics: Float[Tensor, "1 v 4"],
    ) -> Reconstruction:
        """From views, RGB in [0, 1] on white, with their cameras."""
        device = next(self._model.parameters()).device
        inputs = (one.to(device) for one in (images, camera_to_world, intrinsics))
        return Reconstruction(self._model, self._grid, self._model.forward_planes(*inputs))

    def to(self, device: torch.device) -> "Reconstructor":
        """Move it there."""
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
    """The model in a run's folder, a checkpoint's, or a file of weights.

    A run knows its sizes. Of a file they are those of `preset` with `changes` laid over it, or
    without a preset of the one that fits. `resolution` is that of stage 1's grid; stage 2 has its
    own. Raises BadInput.
    """
    if kind == "mesh" and resolution is not None:
        raise BadInput("the mesh model has a grid of its own: a resolution is for --nerf")
    state, name, preset, changes = _read(source, preset, changes)
    _check_kind(state, kind, name)
    cls, make, presets = _STAGES[kind]
    if preset is None:
        preset = _fitting(kind, state, name, changes)
    if preset not in presets:
        make(preset)  # raises
    sizes = make(preset, changes)
    model = cls(sizes)
    load_state(model, state, "instantmesh", source=name)
    if isinstance(model, MeshLRM):
        return Reconstructor(model, model.synthesizer, sizes.image_size)
    grid = _density_grid(model, sizes, resolution or NERF_RESOLUTION, name)
    return Reconstructor(model, grid, sizes.image_size)


_STAGES: Mapping[str, Any] = {
    "nerf": (NerfLRM, nerf_preset, PRESETS),
    "mesh": (MeshLRM, mesh_preset, MESH_PRESETS),
}


class _Holder(nn.Module):
    """A grid under the name that it has in the whole model of stage 2."""

    def __init__(self, synthesizer: MeshSynthesizer) -> None:
        super().__init__()
        self.synthesizer = synthesizer


def _density_grid(model: NerfLRM, sizes: Any, resolution: int, name: str) -> MeshSynthesizer:
    """The decoder of stage 1 as that of stage 2, whose deformation and weights are at rest."""
    config = MeshConfig(
        decoder_width=sizes.nerf.decoder_width,
        decoder_hidden_layers=sizes.nerf.decoder_hidden_layers,
        grid_resolution=resolution,
    )
    holder = _Holder(MeshSynthesizer(config, sizes.transformer.channels))
    decoder = {
        key: value for key, value in model.state_dict().items() if key.startswith("synthesizer.")
    }
    load_state(holder, decoder, "instantmesh", source=name)
    return holder.synthesizer


def _read(
    source: Path, preset: str | None, changes: Mapping[str, Any]
) -> tuple[dict[str, Tensor], str, str | None, Mapping[str, Any]]:
    """Tensors, where they are from, preset and changes."""
    if source.is_dir():
        if preset is not None or changes:
            raise BadInput(f"{source}: a run knows its sizes; leave --preset and --model out")
        checkpoint, state = run_weights(source)
        config = checkpoint.manifest.config
        return state, checkpoint.where, config["preset"], config["model"]
    if source.suffix not in _FILES:
        raise BadInput(
            f"{source}: no such checkpoint; give a run's folder, a checkpoint's, or a file "
            f"{' or '.join(_FILES)}"
        )
    return read_weights(source), str(source), preset, changes


def _check_kind(state: Mapping[str, Tensor], kind: LRMKind, name: str) -> None:
    for prefix, found in _DECODERS.items():
        if found != kind and any(key.removeprefix(_PREFIX).startswith(prefix) for key in state):
            stage = 1 if found == "nerf" else 2
            raise BadInput(f"{name}: is a model of stage {stage}: give it as --{found}")


def _fitting(kind: LRMKind, state: dict[str, Tensor], name: str, changes: Mapping[str, Any]) -> str:
    """The preset whose shapes are those of the file."""
    cls, make, presets = _STAGES[kind]
    problems = {}
    for preset in presets:
        with torch.device("meta"):
            model: LRM = cls(make(preset, changes))
        try:
            check_state(model, state, "instantmesh", source=name)
        except BadInput as error:
            problems[preset] = str(error)
        else:
            return preset
    raise BadInput(
        f"{name}: fits none of the presets {', '.join(presets)}; give --preset, and --model with "
        "what differs, as in training"
    )
