"""Published weights into our models and back, strictly: nothing is skipped without being named.

`instantmesh` reads released checkpoints and training checkpoints of both stages (and turns stage 1
into stage 2 where the model is of stage 2), `openlrm` OpenLRM v1.0, `dino` the image encoder alone.
"""

import logging
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from core.atomic import atomic_file
from core.errors import BadInput
from train.models.lrm.dino import from_dino
from train.models.lrm.lrm import LRM
from train.models.lrm.mesh import MeshSynthesizer
from train.models.lrm.nerf import raw_density

__all__ = [
    "KINDS",
    "LoadReport",
    "check_ending",
    "check_state",
    "export_weights",
    "load_state",
    "load_weights",
    "read_weights",
    "write_weights",
]

_log = logging.getLogger(__name__)

State = dict[str, Tensor]

_PREFIX = "lrm_generator."
_CONTAINERS = ("state_dict", "weights")
"""Entries in which Lightning and OpenLRM keep the tensors."""
_NERF_DECODER = "synthesizer.decoder.net."
_DENSITY_THRESHOLD = 10.0
_SHOWN = 6
"""Keys that an error names before it only counts."""


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of the keys of a file and of a model."""

    source: str
    loaded: int
    """Tensors of the model that come from the file."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Key in the file -> key in the model; brackets show where one becomes several."""
    dropped: tuple[str, ...] = ()
    """Keys of the file that the model has no use for."""
    new: tuple[str, ...] = ()
    """Keys of the model that keep their fresh values."""

    def log(self) -> None:
        """Say it: counts, and every key that did not simply keep its name."""
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
    """A file's tensors under the model's names; steps of a conversion add to it."""

    state: State
    renamed: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


def load_weights(
    model: LRM, path: Path, kind: str, *, published_threshold: bool = False
) -> LoadReport:
    """Fill a model from a file of `kind` (instantmesh, openlrm, dino): see `load_state`."""
    return load_state(
        model, read_weights(path), kind, source=str(path), published_threshold=published_threshold
    )


def load_state(
    model: nn.Module, state: State, kind: str, *, source: str, published_threshold: bool = False
) -> LoadReport:
    """Fill a model with tensors that `kind` names, and log what became of them.

    The kind decides which keys may be dropped and which of the model may stay new; any other key on
    one side only is an error. A model with the `synthesizer` of stage 2 takes a state of stage 1 by
    equations 2 and 3 of InstantMesh: distance = raw(10) - raw density, where raw(10) = 11.0 is what
    the activation turns into a density of 10. The released code subtracts from 10 itself
    (`published_threshold`), which is a density of 9. Raises BadInput naming the keys, and leaves
    the model as it was.
    """
    converted, report = _match(model, state, kind, source, published_threshold)
    model.load_state_dict(model.state_dict() | converted, strict=True)
    report.log()
    return report


def check_state(model: nn.Module, state: State, kind: str, *, source: str) -> None:
    """Raise BadInput where `load_state` would. The model may be on the meta device."""
    _match(model, state, kind, source, published_threshold=False)


def _match(
    model: nn.Module, state: State, kind: str, source: str, published_threshold: bool
) -> tuple[State, LoadReport]:
    """The tensors of `state` under the model's names, and what becomes of every key."""
    convert, may_be_new = _KINDS[kind]
    converted = convert(state)
    is_mesh = isinstance(getattr(model, "synthesizer", None), MeshSynthesizer)
    if is_mesh and any(key.startswith(_NERF_DECODER) for key in converted.state):
        _nerf_to_mesh(converted, published_threshold)
        may_be_new = f"{may_be_new}|{_MESH_IS_NEW}"
    own = model.state_dict()
    _check(own, converted.state, may_be_new, source)
    new = tuple(key for key in own if key not in converted.state)
    return converted.state, LoadReport(
        source=source,
        loaded=len(converted.state),
        renamed=converted.renamed,
        dropped=tuple(converted.dropped),
        new=new,
    )


def export_weights(model: LRM, path: Path) -> None:
    """Write a model: see `write_weights`."""
    write_weights(model.state_dict(), path)


def write_weights(state: State, path: Path) -> None:
    """Write tensors in float32: `.ckpt` as InstantMesh was released, `.safetensors` without prefix.

    Raises BadInput for another ending. The file appears whole or not at all.
    """
    check_ending(path)
    state = {key: value.detach().cpu().float().contiguous() for key, value in state.items()}
    with atomic_file(path) as temporary:
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(state, temporary, metadata={"format": "pt"})
        else:
            prefixed = {_PREFIX + key: value for key, value in state.items()}
            torch.save({"state_dict": prefixed}, temporary)


def check_ending(path: Path) -> None:
    """Raise BadInput unless a file of that name can be written."""
    if path.suffix not in (".ckpt", ".safetensors"):
        raise BadInput(f"{path}: weights are written as .ckpt or .safetensors")


def _nerf_to_mesh(converted: _Converted, published_threshold: bool) -> None:
    """The decoder of stage 1 as that of stage 2, in place: both networks keep the hidden layers."""
    state = converted.state
    keys = [key for key in state if key.startswith(_NERF_DECODER)]
    last = max(int(key.split(".")[-2]) for key in keys)
    level = torch.tensor(_DENSITY_THRESHOLD)
    level = level if published_threshold else raw_density(level)
    for key in keys:
        value, name = state.pop(key), key.removeprefix(_NERF_DECODER)
        distance = colour = value
        if name.startswith(f"{last}."):
            distance, colour = -value[:1], value[1:]
            if name.endswith("bias"):
                distance = level.to(value) + distance
        for net, part in (("net_sdf", distance), ("net_rgb", colour)):
            state[f"synthesizer.decoder.{net}.{name}"] = part.clone()
        converted.renamed[key] = f"synthesizer.decoder.(net_sdf and net_rgb).{name}"


def _from_instantmesh(state: State) -> _Converted:
    """A released model, or a training checkpoint with the model and the loss's own network."""
    if not any(key.startswith(_PREFIX) for key in state):
        return _Converted(state)
    converted = _Converted({})
    for key, value in state.items():
        if key.startswith(_PREFIX) and "source_camera" not in key:
            converted.state[key.removeprefix(_PREFIX)] = value
        elif key.startswith("lpips.") or "source_camera" in key:
            converted.dropped.append(key)
        else:
            # Neither the model's nor the loss's: `_check` will name it.
            converted.state[key] = value
    return converted


def _from_openlrm(state: State) -> _Converted:
    """OpenLRM v1.0, whose transformer is modulated by the camera and whose encoder is not."""
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
    """DINO's vision transformer, as Hugging Face or as its authors name it."""
    tensors, renamed, dropped = from_dino(state)
    return _Converted(tensors, renamed, dropped)


_CAMERA_IS_NEW = r"encoder\.camera_embedder\.|encoder\..*\.adaLN_modulation\."
_MESH_IS_NEW = r"synthesizer\.decoder\.net_(deformation|weight)\."
_KINDS: Mapping[str, tuple[Callable[[State], _Converted], str]] = {
    "instantmesh": (_from_instantmesh, r"(?!)"),
    "openlrm": (_from_openlrm, _CAMERA_IS_NEW),
    "dino": (_from_dino, rf"{_CAMERA_IS_NEW}|transformer\.|synthesizer\."),
}
"""How a kind's keys become the model's, and which of the model's it does not have."""
KINDS = tuple(_KINDS)
"""Whose files are read: instantmesh, openlrm, dino."""


def _check(own: Mapping[str, Tensor], given: State, may_be_new: str, where: str) -> None:
    """Raise BadInput if a key is on one side only, or has two shapes."""
    missing = [key for key in own if key not in given and not re.match(may_be_new, key)]
    foreign = [key for key in given if key not in own]
    problems = [
        f"{what} {_listed(keys)}"
        for what, keys in (("the model needs", missing), ("the model does not know", foreign))
        if keys
    ]
    shapes = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    if shapes:
        problems.append(f"other shapes: {_listed(shapes)}")
    if problems:
        raise BadInput(f"{where}: does not fit the model: {'; '.join(problems)}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def read_weights(path: Path) -> State:
    """The tensors of a file by name. Raises BadInput if it cannot be read or holds others."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # Without weights_only, opening a file runs what is in it.
        mapped = zipfile.is_zipfile(path)  # not so before PyTorch 1.6
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file of weights") from None
    except pickle.UnpicklingError:
        raise BadInput(
            f"{path}: holds Python objects besides tensors, or is no file of weights; objects are "
            "not loaded, because that runs code: save its state dict alone"
        ) from None
    except (OSError, RuntimeError, EOFError, LookupError, safetensors.SafetensorError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: cannot be read as weights: {problem}") from None
    for name in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise BadInput(f"{path}: holds no tensors by name")
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others or not content:
        raise BadInput(f"{path}: holds no tensors under {_listed(others) or 'any name'}")
    return dict(content)
