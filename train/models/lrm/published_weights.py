"""Loading and export of published weights; every key that is not loaded is logged or an error.

There are three kinds of files: `instantmesh`, released or training checkpoints of both stages
(stage 1 can be loaded into a stage-2 model); `openlrm`, OpenLRM v1.0; and `dino`, the image encoder
alone.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from core.atomic import atomic_file
from core.errors import BadInput
from train.models.lrm.dino import from_dino
from train.models.lrm.lrm import LRM
from train.models.lrm.mesh import MeshSynthesizer
from train.models.lrm.nerf import raw_density
from train.models.weight_files.state_dicts import read_state
from train.models.weight_files.writing import writing_weights

__all__ = [
    "KINDS",
    "LoadReport",
    "check_ending",
    "check_state",
    "export_weights",
    "load_state",
    "load_weights",
    "write_weights",
]

_log = logging.getLogger(__name__)

State = dict[str, Tensor]

_PREFIX = "lrm_generator."
_NERF_DECODER = "synthesizer.decoder.net."
_DENSITY_THRESHOLD = 10.0
"""Density of stage 1 at the initial surface of stage 2 (InstantMesh, equations 2 and 3)."""
_MAX_LISTED = 6
"""Number of keys that an error message lists; the rest are counted."""


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Result of loading a file: which keys were loaded, renamed, dropped and left new."""

    source: str
    loaded: int
    """Number of the model's tensors that come from the file."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Key in the file -> key in the model; parentheses list several keys made from one."""
    dropped: tuple[str, ...] = ()
    """Keys of the file that the model does not use."""
    new: tuple[str, ...] = ()
    """Keys of the model that keep their initial values."""

    def log(self) -> None:
        """Log the counts, and every key that was renamed, dropped or left new."""
        _log.info(
            "%s: %d tensors loaded, %d renamed, %d dropped, %d new",
            *(self.source, self.loaded, len(self.renamed), len(self.dropped), len(self.new)),
        )
        for before, after in self.renamed.items():
            _log.info("%s: renamed %s -> %s", self.source, before, after)
        for what, keys in (("dropped", self.dropped), ("new", self.new)):
            for key in keys:
                _log.info("%s: %s %s", self.source, what, key)


@dataclass
class _Converted:
    """A file's tensors under the model's keys; conversion steps modify it."""

    state: State
    renamed: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


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
    converted, report = _match(model, state, kind, source, published_threshold)
    broken = [key for key, value in converted.items() if not torch.isfinite(value).all()]
    if broken:
        raise BadInput(f"{source}: values are not finite in {_join(broken)}; give other weights")
    model.load_state_dict(model.state_dict() | converted, strict=True)
    report.log()
    return report


def check_state(model: nn.Module, state: State, kind: str, *, source: str) -> None:
    """Raise BadInput if `load_state` would. The model may be on the meta device."""
    _match(model, state, kind, source, published_threshold=False)


def _match(
    model: nn.Module, state: State, kind: str, source: str, published_threshold: bool
) -> tuple[State, LoadReport]:
    """Return the tensors of `state` under the model's keys, and the report of every key."""
    convert, may_be_new = _KINDS[kind]
    converted = convert(state)
    is_mesh = isinstance(getattr(model, "synthesizer", None), MeshSynthesizer)
    if is_mesh and any(key.startswith(_NERF_DECODER) for key in converted.state):
        _nerf_to_mesh(converted, published_threshold)
        may_be_new = f"{may_be_new}|{_MESH_IS_NEW}"
    expected = model.state_dict()
    _check_keys(expected, converted.state, may_be_new, source)
    new = tuple(key for key in expected if key not in converted.state)
    return converted.state, LoadReport(
        source=source,
        loaded=len(converted.state),
        renamed=converted.renamed,
        dropped=tuple(converted.dropped),
        new=new,
    )


def export_weights(model: LRM, path: Path) -> None:
    """Write a model's weights to a file; see `write_weights`."""
    write_weights(model.state_dict(), path)


def write_weights(state: State, path: Path) -> None:
    """Write tensors atomically in float32.

    A `.ckpt` has the layout and key prefix of the released InstantMesh, a `.safetensors` no prefix.
    Raises BadInput for any other suffix or a wrong path, and WorkFailed for a full disk.
    """
    check_ending(path)
    state = {key: value.detach().cpu().float().contiguous() for key, value in state.items()}
    with writing_weights(path), atomic_file(path) as temporary:
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(state, temporary, metadata={"format": "pt"})
        else:
            prefixed = {_PREFIX + key: value for key, value in state.items()}
            torch.save({"state_dict": prefixed}, temporary)


def check_ending(path: Path) -> None:
    """Raise BadInput unless the path has a suffix of a format that can be written."""
    if path.suffix not in (".ckpt", ".safetensors"):
        raise BadInput(f"{path}: unknown format; weights are written as .ckpt or .safetensors")


def _nerf_to_mesh(converted: _Converted, published_threshold: bool) -> None:
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


def _from_instantmesh(state: State) -> _Converted:
    """Convert a released model, or a training checkpoint of the model and the LPIPS network."""
    if not any(key.startswith(_PREFIX) for key in state):
        return _Converted(state)
    converted = _Converted({})
    for key, value in state.items():
        if key.startswith(_PREFIX) and "source_camera" not in key:
            converted.state[key.removeprefix(_PREFIX)] = value
        elif key.startswith("lpips.") or "source_camera" in key:
            converted.dropped.append(key)
        else:
            # An unknown key: `_check_keys` rejects it.
            converted.state[key] = value
    return converted


def _from_openlrm(state: State) -> _Converted:
    """Convert OpenLRM v1.0, whose transformer is modulated by the camera and encoder is not."""
    converted = _Converted({})
    for key, value in state.items():
        renamed = re.sub(r"^(transformer\.layers\.\d+\.norm\d)\.norm\.", r"\1.", key)
        if re.match(r"transformer\.layers\.\d+\.norm\d\.mlp\.|camera_embedder\.", key):
            converted.dropped.append(key)
            continue
        if renamed != key:
            converted.renamed[key] = renamed
        converted.state[renamed] = value
    return converted


def _from_dino(state: State) -> _Converted:
    """Convert DINO's vision transformer with Hugging Face's or its authors' keys."""
    tensors, renamed, dropped = from_dino(state)
    return _Converted(tensors, renamed, dropped)


_CAMERA_IS_NEW = r"encoder\.camera_embedder\.|encoder\..*\.adaLN_modulation\."
_MESH_IS_NEW = r"synthesizer\.decoder\.net_(deformation|weight)\."
_KINDS: Mapping[str, tuple[Callable[[State], _Converted], str]] = {
    "instantmesh": (_from_instantmesh, r"(?!)"),
    "openlrm": (_from_openlrm, _CAMERA_IS_NEW),
    "dino": (_from_dino, rf"{_CAMERA_IS_NEW}|transformer\.|synthesizer\."),
}
"""Per kind: the conversion of its keys, and a pattern of model keys that its files do not have."""
KINDS = tuple(_KINDS)
"""Kinds of files that can be loaded: instantmesh, openlrm, dino."""


def _check_keys(expected: Mapping[str, Tensor], state: State, may_be_new: str, source: str) -> None:
    """Raise BadInput if a key is on one side only, or has different shapes or types."""
    missing = [key for key in expected if key not in state and not re.match(may_be_new, key)]
    unknown = [key for key in state if key not in expected]
    problems = [
        f"{what} {_join(keys)}"
        for what, keys in (("the model needs", missing), ("the model does not have", unknown))
        if keys
    ]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    if shapes:
        problems.append(f"shapes differ: {_join(shapes)}")
    types = [
        f"{key} {state[key].dtype} instead of {expected[key].dtype}"
        for key in expected
        if key in state and state[key].is_floating_point() != expected[key].is_floating_point()
    ]
    if types:
        problems.append(f"types differ: {_join(types)}")
    if problems:
        raise BadInput(f"{source}: does not fit the model: {'; '.join(problems)}")


def _join(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
