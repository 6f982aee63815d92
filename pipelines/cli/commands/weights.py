"""`lrm weights`: the model of a training run as a file that others read."""

import argparse
import json
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.options import Parser, add_json_option
from pipelines.cli.command import Command

__all__ = ["COMMAND", "export_run"]


def _options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--run",
        dest="from_run",  # `run` is what the command does
        required=True,
        metavar="DIR",
        help="a run's folder (its newest whole checkpoint counts) or one checkpoint's",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="of an LRM a file, .ckpt: as InstantMesh's are laid out, .safetensors: the same "
        "without prefix; of Zero123++ a new folder: the whole pipeline as diffusers lays it out",
    )
    parser.add_argument(
        "--ema",
        action="store_true",
        help="the moving average of a run of Zero123++ that keeps one, instead of its weights",
    )
    add_json_option(parser)


def _run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    found = export_run(Path(arguments.from_run), Path(arguments.out), ema=arguments.ema)
    if arguments.json:
        print(json.dumps(found))
    else:
        print("{out}: {tensors} tensors of step {step}".format(**found))
    return 0


def export_run(run: Path, out: Path, *, ema: bool = False) -> dict[str, Any]:
    """Write the model of a run in float32, and say which step it is of.

    Raises BadInput if the run has no whole checkpoint, for another ending than .ckpt and
    .safetensors (LRM) or a folder that is there already (Zero123++), and for `ema` where no
    moving average is kept.
    """
    from train.checkpoints.checkpoint import find_checkpoint
    from train.recipes.zero123plus_config import UNET_KEYS

    checkpoint = find_checkpoint(run)
    weights = checkpoint.weights()
    if any(name.startswith(UNET_KEYS) for name in weights):
        from train.recipes.zero123plus_export import write_pipeline

        tensors = write_pipeline(checkpoint, weights, out, ema=ema)
    else:
        tensors = _write_lrm(run, out, ema=ema)
    return {
        "out": str(out),
        "checkpoint": checkpoint.where,
        "step": checkpoint.step,
        "tensors": tensors,
    }


def _write_lrm(run: Path, out: Path, *, ema: bool) -> int:
    from train.checkpoints.initial_weights import run_weights
    from train.models.lrm.published_weights import check_ending, write_weights

    if ema:
        raise BadInput(f"{run}: --ema is for runs of zero123plus: an LRM keeps no moving average")
    check_ending(out)
    _, state = run_weights(run)
    write_weights(state, out)
    return len(state)


COMMAND = Command(
    example="lrm weights --run RUN --out model.safetensors",
    options=_options,
    run=_run,
)
