"""`lrm train --dry-run`: what a run would take, before it takes anything."""

import math
from typing import Any

from dataset.errors import BadInput, LrmError
from dataset.snapshot import open_snapshot
from dataset.storage import Storage
from pipelines.launch import RECIPES
from train.config import TrainConfig
from train.sizing import find_device, size_run

__all__ = ["PLACES", "dry_run"]

PLACES = ("root", "snapshot", "out")
"""Settings that a model has a size without."""
_READ = 4
"""Samples that are read to see how many bytes one costs."""


def dry_run(name: str, config: TrainConfig, device: str, utilisation: float) -> dict[str, Any]:
    """The run's sizes as plain values; nothing is written.

    Places in the configuration may be empty: what needs them is left out. Raises BadInput.
    """
    if not 0 < utilisation <= 1:
        raise BadInput("--utilisation must be above 0 and at most 1")
    # The division alone: weights that a real run needs may lie on another machine.
    TrainConfig.check(config)
    machine = find_device(device)
    recipe = RECIPES[name].make(config)
    size = size_run(recipe, on_gpu=device != "cpu")
    seconds = size.seconds_per_step(config, machine, utilisation)
    memory = sum(size.memory.values())
    return {
        "recipe": name,
        **size.dump(),
        "memory_total": memory,
        "operations": size.operations,
        "checkpoints_kept": config.keep_checkpoints,
        "speed": {
            "device": machine.name,
            "workers": config.num_workers,
            "peak": machine.peak[config.precision],
            "utilisation": utilisation,
            "fits": None if machine.memory_bytes is None else memory <= machine.memory_bytes,
            "seconds_per_step": seconds,
            "steps_per_second": 1 / seconds,
            "samples_per_second": config.batch_size / seconds,
            "seconds": config.steps * seconds,
        },
        "steps": config.steps,
        "batch_size": config.batch_size,
        "data": _data(recipe, config) if config.root and config.snapshot else None,
        "refused": _refusal(config),
    }


def _data(recipe: Any, config: TrainConfig) -> dict[str, Any]:
    """What the snapshot means for the run; a few samples are read to weigh one."""
    root = _Scale(config.root)
    samples = open_snapshot(root, config.snapshot).of_split("train")
    if not samples:
        raise BadInput(f"snapshot {config.snapshot} has no sample in its training split")
    dataset = recipe.dataset(root, samples)
    root.bytes_read = 0
    read = min(_READ, len(samples))
    for position in range(read):
        dataset[position]
    each = root.bytes_read / read
    return {
        "samples": len(samples),
        "samples_read": read,
        "bytes_per_sample": each,
        "bytes_per_step": each * config.batch_size,
        "steps_per_epoch": math.ceil(len(samples) / config.batch_size),
        "epochs": config.steps * config.batch_size / len(samples),
    }


def _refusal(config: TrainConfig) -> str | None:
    """Why this machine would refuse to start the run now, if it would."""
    try:
        config.check()
    except LrmError as error:
        return str(error)
    return None


class _Scale(Storage):
    """A storage that counts the bytes it gives."""

    bytes_read = 0

    def read(self, path: str) -> bytes:
        data = super().read(path)
        self.bytes_read += len(data)
        return data

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        data = super().read_range(path, start, stop)
        self.bytes_read += len(data)
        return data
