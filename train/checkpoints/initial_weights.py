"""Initial weights of a run: published files, another run, or weights exported from a run."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from core.errors import BadInput
from core.storage import Storage
from train.checkpoints.checkpoint import Checkpoint, find_checkpoint
from train.models.weight_files.conversion import (
    LoadReport,
    WeightsFamily,
    check_converted,
    load_converted,
)
from train.models.weight_files.state_dicts import read_state

__all__ = [
    "absolute_source",
    "check_source",
    "initialize",
    "load_init",
    "model_settings",
    "model_tensors",
    "run_weights",
]

_INIT_FILE = "init.json"
"""File in the run's folder with the source of the initial weights and a report of the tensors."""
_MODULE = "model."
"""Prefix of the model's keys in a checkpoint, whose module is the objective around the model."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The tensors of a source, their format (`kind`), and the source's name for messages."""

    state: dict[str, Tensor]
    kind: str
    name: str
    checkpoint: Checkpoint | None = None


def absolute_source(family: WeightsFamily, source: str) -> str:
    """Return the source with an absolute path, for processes with another working directory."""
    kind, path = _split(family, source)
    absolute = str(Path(path).expanduser().absolute())
    return f"{kind}:{absolute}" if kind else absolute


def check_source(family: WeightsFamily, model: nn.Module, settings: Any, source: str) -> None:
    """Raise BadInput unless the source exists and fits the model, which may be on the meta device.

    If the source is a run, its model's settings are compared with `settings`, the configuration of
    the model: some, such as the number of attention heads, are in no tensor's shape.
    """
    opened = _open(family, source)
    converted = family.convert(model, opened.state, opened.kind, opened.name)
    check_converted(model, converted, source=opened.name)
    if opened.checkpoint is not None:
        changed = family.changed_settings(*model_settings(opened.checkpoint), settings)
        if changed:
            raise BadInput(
                f"--init {opened.name}: its {changed}; use the same --preset and --model"
            )


def initialize(family: WeightsFamily, model: nn.Module, source: str, **options: Any) -> LoadReport:
    """Load a source into a model, with the options of the family's conversion. Raises BadInput."""
    opened = _open(family, source)
    converted = family.convert(model, opened.state, opened.kind, opened.name, **options)
    return load_converted(model, converted, source=opened.name)


def load_init(
    family: WeightsFamily, model: nn.Module, source: str | None, out: str, **options: Any
) -> None:
    """Load a source, if there is one, as `initialize` does into the new model of a run.

    Rank 0 writes a report of the loaded tensors to `init.json` in the run's folder `out`.
    """
    if source is None:
        return
    report = initialize(family, model, source, **options)
    if not dist.is_initialized() or dist.get_rank() == 0:
        record = {"init": source, **dataclasses.asdict(report)}
        Storage(Path(out)).write(_INIT_FILE, json.dumps(record, indent=1).encode())


def run_weights(path: Path) -> tuple[Checkpoint, dict[str, Tensor]]:
    """Return the newest intact checkpoint of a run (or the one at `path`) and its model's tensors.

    Raises BadInput if there is none, or if the run trains more than one model.
    """
    checkpoint = find_checkpoint(path)
    return checkpoint, model_tensors(checkpoint, checkpoint.weights())


def model_tensors(checkpoint: Checkpoint, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the model in a checkpoint. Raises BadInput if it has several."""
    if not all(key.startswith(_MODULE) for key in tensors):
        raise BadInput(
            f"{checkpoint.uri}: its recipe {checkpoint.manifest.recipe} does not train a single "
            "model; give a run of nerf, mesh or pixel2mesh"
        )
    return {key.removeprefix(_MODULE): value for key, value in tensors.items()}


def model_settings(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """Return the preset and the changed settings of a run's model. Raises BadInput."""
    config = checkpoint.manifest.config
    preset, changes = config.get("preset"), config.get("model")
    if not isinstance(preset, str) or not isinstance(changes, dict):
        raise BadInput(
            f"{checkpoint.uri}: its manifest has no preset and model; give a run of nerf, mesh or "
            "pixel2mesh, or a file that `lrm weights` wrote"
        )
    return preset, changes


def _open(family: WeightsFamily, source: str) -> _Source:
    kind, name = _split(family, source)
    path = Path(name)
    if kind:
        return _Source(state=read_state(path, family.containers), kind=kind, name=str(path))
    if path.is_dir():
        checkpoint, state = run_weights(path)
        recipe = checkpoint.manifest.recipe
        if recipe and recipe not in family.recipes:
            raise BadInput(
                f"--init {checkpoint.uri}: is of recipe {recipe}, whose model is another one; give "
                f"a run of recipe {' or '.join(family.recipes)}"
            )
        return _Source(
            state=state, kind=family.exported, name=checkpoint.uri, checkpoint=checkpoint
        )
    if path.suffix in family.endings:
        state = read_state(path, family.containers)
        return _Source(state=state, kind=family.exported, name=str(path))
    raise BadInput(
        f"--init {source}: no such source; give the folder of a run, one of its checkpoints, a "
        f"{' or '.join(family.endings)} file that `lrm weights` wrote, or KIND:FILE with KIND one "
        f"of {', '.join(family.kinds)}"
    )


def _split(family: WeightsFamily, source: str) -> tuple[str, str]:
    """Return kind and path of a source; an empty kind for runs and exported weights."""
    kind, colon, path = source.partition(":")
    return (kind, path) if colon and kind in family.kinds else ("", source)
