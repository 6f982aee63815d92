"""Initial weights of a run: published files, another run, or weights exported from a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from core.errors import BadInput
from train.checkpoints.checkpoint import Checkpoint, find_checkpoint
from train.models.lrm.lrm import LRM, LRMConfig, shared_preset
from train.models.lrm.published_weights import (
    KINDS,
    LoadReport,
    check_state,
    load_state,
)
from train.models.weight_files.state_dicts import read_state

__all__ = [
    "absolute_source",
    "check_source",
    "initialize",
    "model_settings",
    "model_tensors",
    "run_weights",
]

_MODULE = "model."
"""Prefix of the model's keys in a checkpoint, whose module is the objective around the model."""
_FORMS = (
    "the folder of a run, one of its checkpoints, a .safetensors or .ckpt file that `lrm weights` "
    f"wrote, or KIND:FILE with KIND one of {', '.join(KINDS)}"
)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The tensors of a source, their format (`kind`), and the source's name for messages."""

    state: dict[str, Tensor]
    kind: str
    name: str
    checkpoint: Checkpoint | None = None


def absolute_source(source: str) -> str:
    """Return the source with an absolute path, for processes with another working directory."""
    kind, path = _split(source)
    absolute = str(Path(path).expanduser().absolute())
    return f"{kind}:{absolute}" if kind else absolute


def check_source(model: LRM, sizes: LRMConfig, source: str) -> None:
    """Raise BadInput unless the source exists and fits the model, which may be on the meta device.

    The number of attention heads cannot be read from tensor shapes, so if the source is a run,
    `sizes` are compared with the run's configuration.
    """
    opened = _open(source)
    check_state(model, opened.state, opened.kind, source=opened.name)
    if opened.checkpoint is not None:
        _check_sizes(opened.checkpoint, sizes)


def initialize(model: LRM, source: str, *, published_threshold: bool = False) -> LoadReport:
    """Load a source into a model with `published_weights.load_state`. Raises BadInput."""
    opened = _open(source)
    return load_state(
        model,
        opened.state,
        opened.kind,
        source=opened.name,
        published_threshold=published_threshold,
    )


def run_weights(path: Path) -> tuple[Checkpoint, dict[str, Tensor]]:
    """Return the newest intact checkpoint of a run (or the one at `path`) and its model's tensors.

    Raises BadInput if there is none, or if the run did not train an LRM.
    """
    checkpoint = find_checkpoint(path)
    return checkpoint, model_tensors(checkpoint, checkpoint.weights())


def model_tensors(checkpoint: Checkpoint, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the model in a checkpoint. Raises BadInput if it is of no LRM."""
    if not all(key.startswith(_MODULE) for key in tensors):
        raise BadInput(
            f"{checkpoint.uri}: is not a checkpoint of an LRM; give a run of recipe nerf or mesh"
        )
    return {key.removeprefix(_MODULE): value for key, value in tensors.items()}


def model_settings(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """Return the preset and the changed settings of a run's model. Raises BadInput."""
    config = checkpoint.manifest.config
    preset, changes = config.get("preset"), config.get("model")
    if not isinstance(preset, str) or not isinstance(changes, dict):
        raise BadInput(
            f"{checkpoint.uri}: its manifest has no preset and model; give a run of recipe nerf or "
            "mesh, or a file that `lrm weights` wrote"
        )
    return preset, changes


def _open(source: str) -> _Source:
    kind, name = _split(source)
    path = Path(name)
    if kind:
        return _Source(state=read_state(path), kind=kind, name=str(path))
    if path.is_dir():
        checkpoint, state = run_weights(path)
        name = checkpoint.uri
        return _Source(state=state, kind="instantmesh", name=name, checkpoint=checkpoint)
    if path.suffix in (".safetensors", ".ckpt"):
        return _Source(state=read_state(path), kind="instantmesh", name=str(path))
    raise BadInput(f"--init {source}: no such source; give {_FORMS}")


def _split(source: str) -> tuple[str, str]:
    """Return kind and path of a source; an empty kind for runs and exported weights."""
    kind, colon, path = source.partition(":")
    return (kind, path) if colon and kind in KINDS else ("", source)


def _check_sizes(checkpoint: Checkpoint, sizes: LRMConfig) -> None:
    run_sizes = shared_preset(*model_settings(checkpoint))
    for part in ("encoder", "transformer"):
        before, after = (getattr(one, part).dump() for one in (run_sizes, sizes))
        changed = [f"{k} {before[k]} -> {after[k]}" for k in before if before[k] != after[k]]
        if changed:
            raise BadInput(
                f"--init {checkpoint.uri}: its model.{part} differs from this run's: "
                f"{', '.join(changed)}; use the same --preset and --model"
            )
