"""DeepSpeed's part of a checkpoint: writing without raising, loading with two corrections.

Checked with DeepSpeed 0.19.8. `DeepSpeedEngine.save_checkpoint` is a collective call that ends in a
barrier. Before the barrier, each rank writes its files through `engine.checkpoint_engine`, an
object of the public interface `CheckpointEngine`. If a write raised on one rank (a full disk), that
rank would leave, and the others would wait in the barrier until the process group times out.
Neither the configuration nor `deepspeed.initialize` accepts a custom checkpoint engine, so
`write_state` replaces the attribute while DeepSpeed writes. If DeepSpeed stops writing through it,
`test_a_full_disk_costs_a_checkpoint_and_not_the_run` fails.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from core.errors import first_line
from core.paths.plain_name import plain_name
from train.checkpoints.universal import UNIVERSAL_INFO

__all__ = ["SAVING_ERRORS", "load_state", "write_state"]

_log = logging.getLogger(__name__)

SAVING_ERRORS = (OSError, RuntimeError)
"""Errors that torch.save raises on a full or failing disk."""


class _ErrorCollectingEngine:
    """A wrapper of DeepSpeed's checkpoint engine that collects write errors and does not raise."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self.problems: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def save(self, state_dict: Any, path: str) -> None:
        """Write a file; on failure, append the error to `problems`."""
        try:
            self._writer.save(state_dict, path)
        except SAVING_ERRORS as error:
            self.problems.append(first_line(error))


def _copy_scripts(copy: Callable[[Any, str], None], engine: Any, folder: str) -> None:
    """Copy DeepSpeed's scripts next to the checkpoints, which are complete without them.

    DeepSpeed raises on rank 0 if that fails, and the other ranks would wait.
    """
    try:
        copy(engine, folder)
    except OSError as error:
        _log.warning("cannot copy the scripts of DeepSpeed next to the checkpoints: %s", error)


def write_state(engine: Any, folder: Path, step: int) -> list[str]:
    """Write this rank's files of an engine's state to a folder; all ranks call it.

    Returns the errors of this rank.
    """
    original = engine.checkpoint_engine
    engine.checkpoint_engine = collecting = _ErrorCollectingEngine(original)
    engine._copy_recovery_script = partial(
        _copy_scripts, type(engine)._copy_recovery_script, engine
    )
    try:
        state = {"step": step, **UNIVERSAL_INFO}
        engine.save_checkpoint(
            str(folder.parent), tag=folder.name, client_state=state, save_latest=False
        )
    finally:
        engine.checkpoint_engine = original
        del engine._copy_recovery_script
    return collecting.problems


def load_state(engine: Any, folder: Path) -> int | None:
    """Load this rank's part of an engine's state; all ranks call it.

    Returns the step of the checkpoint; None if DeepSpeed could not load it.
    """
    groups = [
        {name: value for name, value in group.items() if name != "params"}
        for group in engine.optimizer.param_groups
    ]
    with plain_name(folder.parent) as parent:
        path, client = engine.load_checkpoint(str(parent), tag=folder.name, load_module_strict=True)
    if path is None:
        return None
    # ZeRO 3 loads the hyperparameters of the first group into all groups: restore them.
    for group, values in zip(engine.optimizer.param_groups, groups, strict=True):
        group.update(values)
    # ZeRO 3 loads one `step` tensor that all parameters share, and each update of a parameter
    # would increment it: give each parameter its own.
    states = getattr(getattr(engine.optimizer, "optimizer", engine.optimizer), "state", {})
    for state in states.values():
        if torch.is_tensor(state.get("step")):
            state["step"] = state["step"].clone()
    return client.get("step")
