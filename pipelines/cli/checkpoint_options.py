"""Options that select a trained LRM: `--nerf` or `--mesh`, and the sizes of a weights file."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from core.errors import BadInput
from core.options import Parser
from core.options.bounds import at_most
from core.paths.yaml_file import parse_yaml
from pipelines.cli.torch_options import add_device_option, open_device

if TYPE_CHECKING:
    from train.inference.lrm import LRMKind, Reconstructor

__all__ = ["add_checkpoint_options", "open_checkpoint"]

_FORMS = "folder of a run, one of its checkpoints, a .ckpt or a .safetensors"


def add_checkpoint_options(parser: Parser) -> None:
    """Add the options of the model."""
    parser.add_argument("--mesh", metavar="CHECKPOINT", help=f"LRM of stage 2: {_FORMS}.")
    parser.add_argument("--nerf", metavar="CHECKPOINT", help=f"LRM of stage 1: {_FORMS}.")
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="Size of the model in a file: base, large, small, tiny. [default: the one that fits]",
    )
    parser.add_argument(
        "--model",
        default="{}",
        metavar="YAML",
        help="Settings in which the model of a file differs from its preset, as in training.",
    )
    parser.add_argument(
        "--resolution",
        type=at_most(int, 1024),
        metavar="N",
        help="With --nerf: cubes along a side of the grid that the mesh is extracted from. "
        "[default: 256]",
    )
    add_device_option(parser)


def open_checkpoint(arguments: argparse.Namespace) -> "Reconstructor":
    """Return the model on its device. Raises BadInput."""
    device = open_device(arguments.device)
    kind, path = _source(arguments)
    if arguments.resolution is not None and not 4 <= arguments.resolution <= 1024:
        raise BadInput(f"--resolution {arguments.resolution}: give a number from 4 to 1024")
    changes = _changes(arguments.model)

    from train.inference.lrm import open_reconstructor

    return open_reconstructor(
        kind, path, preset=arguments.preset, changes=changes, resolution=arguments.resolution
    ).to(device)


def _source(arguments: argparse.Namespace) -> "tuple[LRMKind, Path]":
    if (arguments.nerf is None) == (arguments.mesh is None):
        raise BadInput("give one model: --mesh CHECKPOINT (stage 2) or --nerf CHECKPOINT (stage 1)")
    kind: LRMKind = "nerf" if arguments.mesh is None else "mesh"
    path = Path(arguments.nerf if arguments.mesh is None else arguments.mesh).expanduser()
    if not path.exists():
        raise BadInput(f"--{kind} {path}: no such checkpoint; give {_FORMS}")
    return kind, path


def _changes(text: str) -> dict[str, Any]:
    try:
        changes = parse_yaml(text)
    except yaml.YAMLError:
        changes = None
    if not isinstance(changes, dict):
        raise BadInput(f"--model {text!r}: give settings such as {{transformer: {{channels: 80}}}}")
    return changes
