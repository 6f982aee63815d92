"""`lrm weights`: the model of a training run as a file for other programs."""

import argparse
import json
from pathlib import Path
from typing import Any

from core.options import Parser, add_json_option
from core.outputs import check_writable
from pipelines.cli.command import Command

__all__ = ["COMMAND", "export_run"]


def _options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--run",
        dest="from_run",  # `run` is what the command does
        required=True,
        metavar="DIR",
        help="Folder of a run, whose newest complete checkpoint is used, or of a checkpoint.",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="LRM: a file, .ckpt (the keys of InstantMesh's) or .safetensors (the same without "
        "prefix). Pixel2Mesh: a file, .pt or .safetensors (the published keys). Zero123++: a new "
        "folder for the whole pipeline in the layout of diffusers.",
    )
    parser.add_argument(
        "--ema",
        action="store_true",
        help="Write the moving average of the weights (Zero123++ runs with --ema).",
    )
    add_json_option(parser)


def _run(arguments: argparse.Namespace) -> int:
    """Write the weights and print their step."""
    result = export_run(Path(arguments.from_run), Path(arguments.out), ema=arguments.ema)
    if arguments.json:
        print(json.dumps(result))
    else:
        print("{out}: {tensors} tensors of step {step}".format(**result))
    return 0


def export_run(run: Path, out: Path, *, ema: bool = False) -> dict[str, Any]:
    """Write the model of a run in float32; return its step and the number of tensors.

    The run's recipe decides the format (`RecipeKind.export_path`). Raises BadInput if the run has
    no complete checkpoint, if `out` has a wrong suffix, or exists already where a folder is
    written, and for `ema` if the run keeps no moving average.
    """
    from train.checkpoints.checkpoint import find_checkpoint
    from train.recipes.registry import exporting_kind

    check_writable(out.parent)
    checkpoint = find_checkpoint(run)
    kind = exporting_kind(checkpoint)
    tensors = kind.export(checkpoint, checkpoint.weights(), out, ema=ema)
    return {
        "out": str(out),
        "checkpoint": checkpoint.uri,
        "step": checkpoint.step,
        "tensors": tensors,
    }


COMMAND = Command(
    example="lrm weights --run RUN --out model.safetensors",
    options=_options,
    run=_run,
)
