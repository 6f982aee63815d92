"""`lrm train --dry-run`: what a run would take, before it takes anything."""

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

from core.errors import BadInput, LrmError
from core.options import Parser, given_values
from core.ranges import Range
from core.storage import Storage
from dataset.snapshots.snapshot import open_snapshot
from pipelines.cli.tables import show_run_size
from train.checkpoints.resuming import find_resumable
from train.estimate.sizing import find_device, size_run
from train.recipes.registry import RECIPES
from train.settings.train_config import TrainConfig

__all__ = ["dry_run", "dry_run_options", "is_dry_run", "print_dry_run"]

_DEVICE = "h100"
_UTILISATION = 0.35
_PLACES = ("root", "snapshot", "out")
"""Settings that a model has a size without."""
_READ = 4
"""Samples that are read to see how many bytes one costs."""


def dry_run_options(parser: Parser) -> None:
    """Add what a dry run is asked with."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only say how big the run is; needs neither --root, --snapshot nor --out",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="h100, a100, cpu or a peak in TFLOP/s, for the speed in a dry run "
        f"[default: {_DEVICE}]",
    )
    parser.add_argument(
        "--utilisation",
        type=float,
        metavar="SHARE",
        help=f"share of that peak which training reaches, in a dry run [default: {_UTILISATION}]",
    )


def is_dry_run(arguments: argparse.Namespace) -> bool:
    """Whether one is asked for. Raises BadInput if only its details are."""
    if not arguments.dry_run and (arguments.device or arguments.utilisation is not None):
        raise BadInput("--device and --utilisation only say something with --dry-run")
    return bool(arguments.dry_run)


def print_dry_run(name: str, arguments: argparse.Namespace) -> None:
    """Print the sizes of the run that the options describe. Raises BadInput."""
    values = dict.fromkeys(_PLACES, "") | given_values(arguments)
    config = RECIPES[name].config.load(values, where="options")
    share = _UTILISATION if arguments.utilisation is None else arguments.utilisation
    found = dry_run(name, config, arguments.device or _DEVICE, share)
    if arguments.json:
        print(json.dumps(found))
    else:
        show_run_size(found)


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
            "workers": config.world_size,
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
        if find_resumable(config) is None:
            config.check_start()
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

    def read_spans(
        self, path: str, spans: Sequence[Range], timeout: float | None = None
    ) -> list[bytes]:
        blocks = super().read_spans(path, spans, timeout)
        self.bytes_read += sum(map(len, blocks))
        return blocks
