"""DeepSpeed's part of a checkpoint: written without raising, and loaded with two corrections.

Checked with DeepSpeed 0.19.8. `DeepSpeedEngine.save_checkpoint` is collective: it ends in a
barrier, and each rank writes its files before it through `engine.checkpoint_engine`, an object of
the public interface `CheckpointEngine`. An error of one rank's write (a full disk) would make that
rank leave, and the others would wait in the barrier until the process group times out. Neither the
configuration nor `deepspeed.initialize` accepts a checkpoint engine of ours, so `write_state`
replaces the attribute while DeepSpeed writes. If DeepSpeed stops writing through it,
`test_a_full_disk_costs_a_checkpoint_and_not_the_run` fails.
"""

from pathlib import Path
from typing import Any

import torch

from core.errors import first_line
from train.checkpoints.universal import UNIVERSAL_INFO

__all__ = ["SAVING_ERRORS", "load_state", "write_state"]

SAVING_ERRORS = (OSError, RuntimeError)
"""What torch.save raises on a full or failing disk."""


class _CollectingWriter:
    """A checkpoint engine of DeepSpeed whose writes collect their errors instead of raising."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self.problems: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def save(self, state_dict: Any, path: str) -> None:
        """Write a file, or note why that failed."""
        try:
            self._writer.save(state_dict, path)
        except SAVING_ERRORS as error:
            self.problems.append(first_line(error))


def write_state(engine: Any, folder: Path, step: int) -> list[str]:
    """Write this rank's files of an engine's state to a folder; all ranks call it.

    Returns what went wrong on this rank.
    """
    writer = engine.checkpoint_engine
    engine.checkpoint_engine = collecting = _CollectingWriter(writer)
    try:
        state = {"step": step, **UNIVERSAL_INFO}
        engine.save_checkpoint(
            str(folder.parent), tag=folder.name, client_state=state, save_latest=False
        )
    finally:
        engine.checkpoint_engine = writer
    return collecting.problems


def load_state(engine: Any, folder: Path) -> int | None:
    """Load this rank's part of an engine's state; all ranks call it.

    Returns the step of the checkpoint; None if DeepSpeed could not load it.
    """
    groups = [
        {name: value for name, value in group.items() if name != "params"}
        for group in engine.optimizer.param_groups
    ]
    path, client = engine.load_checkpoint(
        str(folder.parent), tag=folder.name, load_module_strict=True
    )
    if path is None:
        return None
    # ZeRO 3 loads the hyperparameters of the first group into all groups.
    for group, values in zip(engine.optimizer.param_groups, groups, strict=True):
        group.update(values)
    # ZeRO 3 loads one `step` tensor for all parameters: each one would count every update.
    states = getattr(getattr(engine.optimizer, "optimizer", engine.optimizer), "state", {})
    for state in states.values():
        if torch.is_tensor(state.get("step")):
            state["step"] = state["step"].clone()
    return client.get("step")
