"""`lrm train --dry-run`: memory, speed and duration of a run, without starting it."""

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

from core.errors import BadInput, LrmError
from core.options import Parser, load_config
from core.options.bounds import at_most
from core.ranges import Range
from core.storage import Storage
from dataset.snapshots.snapshot import Sample, open_snapshot
from pipelines.cli.run_size_tables import show_run_size
from train.checkpoints.pinned_snapshot import pin_snapshot
from train.checkpoints.resuming import find_resumable
from train.estimate.sizing import find_device, size_run
from train.loop.preflight import training_samples
from train.recipes.registry import RECIPES
from train.settings.train_config import TrainConfig

__all__ = ["dry_run", "dry_run_options", "is_dry_run", "print_dry_run"]

_DEVICE = "h100"
_UTILISATION = 0.35
_NOT_NEEDED = ("root", "snapshot", "out")
"""Required settings that the size of a model does not depend on."""
_SAMPLES_READ = 4
"""Samples that are read to find the bytes per sample."""


def dry_run_options(parser: Parser) -> None:
    """Add `--dry-run` and its options."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="Print memory, speed and duration of the run without starting it; --root, --snapshot "
        "and --out are not needed.",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="With --dry-run: device whose speed is assumed: h100, a100, cpu, or a peak in "
        f"TFLOP/s. [default: {_DEVICE}]",
    )
    parser.add_argument(
        "--utilisation",
        type=at_most(float, 1e6),
        metavar="SHARE",
        help=f"With --dry-run: share of the peak that training reaches. [default: {_UTILISATION}]",
    )


def is_dry_run(arguments: argparse.Namespace) -> bool:
    """Return whether `--dry-run` is given. Raises BadInput if only its options are."""
    if not arguments.dry_run and (arguments.device or arguments.utilisation is not None):
        raise BadInput("--device and --utilisation need --dry-run")
    return bool(arguments.dry_run)


def print_dry_run(name: str, arguments: argparse.Namespace) -> None:
    """Print the sizes of the run that the options describe. Raises BadInput."""
    config = load_config(RECIPES[name].config, arguments, dict.fromkeys(_NOT_NEEDED, ""))
    share = _UTILISATION if arguments.utilisation is None else arguments.utilisation
    sizes = dry_run(name, config, arguments.device or _DEVICE, share)
    if arguments.json:
        print(json.dumps(sizes))
    else:
        show_run_size(sizes)


def dry_run(name: str, config: TrainConfig, device: str, utilisation: float) -> dict[str, Any]:
    """Return the sizes of a run as plain values; write nothing.

    `root`, `snapshot` and `out` may be empty: what depends on them is left out. Raises BadInput.
    """
    if not 0 < utilisation <= 1:
        raise BadInput("--utilisation must be above 0 and at most 1")
    # Only the check of the base class: weights may exist on the machine of the run alone.
    TrainConfig.check(config)
    samples: Sequence[Sample] | None = None
    if config.root and config.snapshot:
        config = pin_snapshot(config)
        samples = training_samples(config, open_snapshot(Storage(config.root), config.snapshot))
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
        "data": None if samples is None else _data(recipe, config, samples),
        "refused": _refusal(config),
    }


def _data(recipe: Any, config: TrainConfig, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return epochs and bytes to read; reads a few samples to find the bytes of one."""
    root = _CountingStorage(config.root)
    dataset = recipe.dataset(root, samples)
    num_read = min(_SAMPLES_READ, len(samples))
    for position in range(num_read):
        dataset[position]
    each = root.bytes_read / num_read
    return {
        "snapshot": config.snapshot,
        "samples": len(samples),
        "samples_read": num_read,
        "bytes_per_sample": each,
        "bytes_per_step": each * config.batch_size,
        "steps_per_epoch": math.ceil(len(samples) / config.batch_size),
        "epochs": config.steps * config.batch_size / len(samples),
    }


def _refusal(config: TrainConfig) -> str | None:
    """Return why this machine cannot start the run now; None if it can."""
    try:
        config.check()
        if find_resumable(config) is None:
            config.check_start()
    except LrmError as error:
        return str(error)
    return None


class _CountingStorage(Storage):
    """A storage that counts the bytes that are read from it."""

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
