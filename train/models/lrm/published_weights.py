"""Loading and export of published weights; every key that is not loaded is logged or an error.

There are three kinds of files: `instantmesh`, released or training checkpoints of both stages
(stage 1 can be loaded into a stage-2 model); `openlrm`, OpenLRM v1.0; and `dino`, the image encoder
alone.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from train.models.lrm.dino import from_dino
from train.models.lrm.lrm import LRM, LRMConfig, shared_preset
from train.models.lrm.mesh import MeshSynthesizer
from train.models.lrm.nerf import raw_density
from train.models.weight_files.conversion import (
    Converted,
    LoadReport,
    State,
    WeightsFamily,
    load_converted,
)
from train.models.weight_files.state_dicts import read_state
from train.models.weight_files.writing import Layouts, write_tensors

__all__ = [
    "LRM_WEIGHTS",
    "export_weights",
    "load_state",
    "load_weights",
    "write_weights",
]

_PREFIX = "lrm_generator."
_NERF_DECODER = "synthesizer.decoder.net."
_DENSITY_THRESHOLD = 10.0
"""Density of stage 1 at the initial surface of stage 2 (InstantMesh, equations 2 and 3)."""


def load_weights(
    model: LRM, path: Path, kind: str, *, published_threshold: bool = False
) -> LoadReport:
    """Load a file of `kind` (instantmesh, openlrm or dino) into a model; see `load_state`."""
    return load_state(
        model, read_state(path), kind, source=str(path), published_threshold=published_threshold
    )


def load_state(
    model: nn.Module, state: State, kind: str, *, source: str, published_threshold: bool = False
) -> LoadReport:
    """Load a state dict of `kind` into a model, and log the result.

    `kind` determines which keys may be dropped and which keys of the model may stay new; any other
    key on one side only is an error. A stage-1 state is converted for a stage-2 model by equations
    2 and 3 of InstantMesh: distance = raw(10) - raw density, where raw(10) = 11.0 is the raw
    density of a density of 10. With `published_threshold`, the raw density is subtracted from 10
    instead, as in the released code, which corresponds to a density of 9. Raises BadInput that
    lists the keys, and leaves the model unchanged, if the state does not fit or has values that are
    not finite.
    """
    converted = _convert(model, state, kind, source, published_threshold=published_threshold)
    return load_converted(model, converted, source=source)


def _convert(
    model: nn.Module, state: State, kind: str, _source: str, *, published_threshold: bool = False
) -> Converted:
    """Return the tensors of `state` under the model's keys."""
    converted = _KINDS[kind](state)
    is_mesh = isinstance(getattr(model, "synthesizer", None), MeshSynthesizer)
    if is_mesh and any(key.startswith(_NERF_DECODER) for key in converted.state):
        _nerf_to_mesh(converted, published_threshold)
        converted.may_be_new += f"|{_MESH_IS_NEW}"
    return converted


def export_weights(model: LRM, path: Path) -> None:
    """Write a model's weights to a file; see `write_weights`."""
    write_weights(model.state_dict(), path)


def write_weights(state: State, path: Path) -> None:
    """Write tensors atomically in float32.

    A `.ckpt` has the layout and key prefix of the released InstantMesh, a `.safetensors` no prefix.
    Raises BadInput for any other suffix or a wrong path, and WorkFailed for a full disk.
    """
    write_tensors(state, path, _LAYOUTS)


def _nerf_to_mesh(converted: Converted, published_threshold: bool) -> None:
    """Convert the stage-1 decoder to that of stage 2 in place.

    Both networks of stage 2 get copies of the hidden layers; the last layer is split.
    """
    state = converted.state
    keys = [key for key in state if key.startswith(_NERF_DECODER)]
    last = max(int(key.split(".")[-2]) for key in keys)
    threshold = torch.tensor(_DENSITY_THRESHOLD)
    threshold = threshold if published_threshold else raw_density(threshold)
    for key in keys:
        value, name = state.pop(key), key.removeprefix(_NERF_DECODER)
        distance = colour = value
        if name.startswith(f"{last}."):
            distance, colour = -value[:1], value[1:]
            if name.endswith("bias"):
                distance = threshold.to(value) + distance
        for net, tensor in (("net_sdf", distance), ("net_rgb", colour)):
            state[f"synthesizer.decoder.{net}.{name}"] = tensor.clone()
        converted.renamed[key] = f"synthesizer.decoder.(net_sdf and net_rgb).{name}"


def _from_instantmesh(state: State) -> Converted:
    """Convert a released model, or a training checkpoint of the model and the LPIPS network."""
    if not any(key.startswith(_PREFIX) for key in state):
        return Converted(state)
    converted = Converted({})
    for key, value in state.items():
        if key.startswith(_PREFIX) and "source_camera" not in key:
            converted.state[key.removeprefix(_PREFIX)] = value
        elif key.startswith("lpips.") or "source_camera" in key:
            converted.dropped.append(key)
        else:
            # An unknown key: `_check_keys` rejects it.
            converted.state[key] = value
    return converted


def _from_openlrm(state: State) -> Converted:
    """Convert OpenLRM v1.0, whose transformer is modulated by the camera and encoder is not."""
    converted = Converted({}, may_be_new=_CAMERA_IS_NEW)
    for key, value in state.items():
        renamed = re.sub(r"^(transformer\.layers\.\d+\.norm\d)\.norm\.", r"\1.", key)
        if re.match(r"transformer\.layers\.\d+\.norm\d\.mlp\.|camera_embedder\.", key):
            converted.dropped.append(key)
            continue
        if renamed != key:
            converted.renamed[key] = renamed
        converted.state[renamed] = value
    return converted


def _from_dino(state: State) -> Converted:
    """Convert DINO's vision transformer with Hugging Face's or its authors' keys."""
    tensors, renamed, dropped = from_dino(state)
    is_new = rf"{_CAMERA_IS_NEW}|transformer\.|synthesizer\."
    return Converted(tensors, renamed, dropped, is_new)


def _changed_settings(preset: str, changes: Mapping[str, Any], sizes: LRMConfig) -> str:
    """Return how the part that both stages share differs; heads are in no tensor's shape."""
    run_sizes = shared_preset(preset, changes)
    for part in ("encoder", "transformer"):
        before, after = (getattr(one, part).dump() for one in (run_sizes, sizes))
        changed = [f"{k} {before[k]} -> {after[k]}" for k in before if before[k] != after[k]]
        if changed:
            return f"model.{part} differs from this run's: {', '.join(changed)}"
    return ""


_CAMERA_IS_NEW = r"encoder\.camera_embedder\.|encoder\..*\.adaLN_modulation\."
_MESH_IS_NEW = r"synthesizer\.decoder\.net_(deformation|weight)\."
_KINDS: Mapping[str, Callable[[State], Converted]] = {
    "instantmesh": _from_instantmesh,
    "openlrm": _from_openlrm,
    "dino": _from_dino,
}
_LAYOUTS: Layouts = {
    ".ckpt": lambda state: {"state_dict": {_PREFIX + key: one for key, one in state.items()}}
}
LRM_WEIGHTS = WeightsFamily(
    recipes=("nerf", "mesh"),
    kinds=tuple(_KINDS),
    exported="instantmesh",
    layouts=_LAYOUTS,
    convert=_convert,
    changed_settings=_changed_settings,
)
"""What both stages can start from."""
