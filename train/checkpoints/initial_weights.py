"""What a run starts from: published files, a run of ours, or weights that one exported."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from core.errors import BadInput
from train.checkpoints.checkpoint import Checkpoint, find_checkpoint
from train.models.lrm.lrm import LRM, LRMConfig, shared_preset
from train.models.lrm.published_weights import (
    KINDS,
    LoadReport,
    check_state,
    load_state,
    read_weights,
)

__all__ = ["absolute_source", "check_source", "initialize", "run_weights"]

_MODULE = "model."
"""What DeepSpeed trains is the objective; this is the model in it."""
_FORMS = (
    f"KIND:FILE with KIND one of {', '.join(KINDS)}, a run's folder, one of its checkpoints, or a "
    ".safetensors or .ckpt that `lrm weights` wrote"
)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Tensors, what they are, and where they come from."""

    state: dict[str, Tensor]
    kind: str
    name: str
    checkpoint: Checkpoint | None = None


def absolute_source(source: str) -> str:
    """The same source for a process that stands in another folder."""
    kind, path = _split(source)
    absolute = str(Path(path).expanduser().absolute())
    return f"{kind}:{absolute}" if kind else absolute


def check_source(model: LRM, sizes: LRMConfig, source: str) -> None:
    """Raise BadInput unless the source is there and fits the model, which may be a meta one.

    Shapes do not tell the number of attention heads: where the source is a run, `sizes` are
    compared with the run's.
    """
    found = _open(source)
    check_state(model, found.state, found.kind, source=found.name)
    if found.checkpoint is not None:
        _check_sizes(found.checkpoint, sizes)


def initialize(model: LRM, source: str, *, published_threshold: bool = False) -> LoadReport:
    """Load a source into a model, as `published_weights.load_state` does. Raises BadInput."""
    found = _open(source)
    return load_state(
        model,
        found.state,
        found.kind,
        source=found.name,
        published_threshold=published_threshold,
    )


def run_weights(path: Path) -> tuple[Checkpoint, dict[str, Tensor]]:
    """The model of a run's newest whole checkpoint, or of one checkpoint's folder.

    Raises BadInput if there is none, or if something else than an LRM was trained.
    """
    checkpoint = find_checkpoint(path)
    tensors = checkpoint.weights()
    if not all(key.startswith(_MODULE) for key in tensors):
        raise BadInput(f"{checkpoint.where}: is no checkpoint of an LRM")
    return checkpoint, {key.removeprefix(_MODULE): value for key, value in tensors.items()}


def _open(source: str) -> _Source:
    kind, name = _split(source)
    path = Path(name)
    if kind:
        return _Source(state=read_weights(path), kind=kind, name=str(path))
    if path.is_dir():
        checkpoint, state = run_weights(path)
        name = checkpoint.where
        return _Source(state=state, kind="instantmesh", name=name, checkpoint=checkpoint)
    if path.suffix in (".safetensors", ".ckpt"):
        return _Source(state=read_weights(path), kind="instantmesh", name=str(path))
    raise BadInput(f"init {source}: no such source; give {_FORMS}")


def _split(source: str) -> tuple[str, str]:
    """Kind and file; no kind for what is ours."""
    kind, colon, path = source.partition(":")
    return (kind, path) if colon and kind in KINDS else ("", source)


def _check_sizes(checkpoint: Checkpoint, sizes: LRMConfig) -> None:
    config = checkpoint.manifest.config
    theirs = shared_preset(config["preset"], config["model"])
    for part in ("encoder", "transformer"):
        before, after = (getattr(one, part).dump() for one in (theirs, sizes))
        changed = [f"{k} {before[k]} -> {after[k]}" for k in before if before[k] != after[k]]
        if changed:
            raise BadInput(f"{checkpoint.where}: its model.{part} is another: {', '.join(changed)}")
