"""`lrm weights`: the model of a training run as a file that others read."""

import argparse
import json
from pathlib import Path
from typing import Any

from pipelines.options import Parser, add_json_option

__all__ = ["export_run", "weights", "weights_options"]


def weights_options(parser: Parser) -> None:
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
        help=".ckpt: as InstantMesh's files are laid out; .safetensors: the same without prefix",
    )
    add_json_option(parser)


def weights(arguments: argparse.Namespace) -> int:
    """Run the command."""
    found = export_run(Path(arguments.from_run), Path(arguments.out))
    if arguments.json:
        print(json.dumps(found))
    else:
        print("{out}: {tensors} tensors of step {step}".format(**found))
    return 0


def export_run(run: Path, out: Path) -> dict[str, Any]:
    """Write the model of a run in float32, and say which step it is of.

    Raises BadInput if the run has no whole checkpoint, or for another ending than .ckpt and
    .safetensors.
    """
    from train.initial_weights import run_weights
    from train.weights import check_ending, write_weights

    check_ending(out)
    checkpoint, state = run_weights(run)
    write_weights(state, out)
    return {
        "out": str(out),
        "checkpoint": str(checkpoint.folder),
        "step": checkpoint.step,
        "tensors": len(state),
    }
