"""Options that select a trained model of any family, and the sizes of a weight file."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from core.errors import BadInput
from core.options import Parser
from core.options.bounds import at_most
from core.paths.yaml_file import parse_yaml
from pipelines.cli.torch_options import add_device_option, open_device
from train.inference.families import FAMILIES, check_options, get_family, open_model
from train.inference.family import Family, ModelOptions

if TYPE_CHECKING:
    from train.inference.reconstruction import Reconstructor

__all__ = ["ChosenModel", "add_checkpoint_options", "chosen_model", "open_checkpoint"]

_FORMS = "folder of a run, one of its checkpoints, or a weight file"
_SHORT = {"mesh": "LRM of stage 2", "nerf": "LRM of stage 1"}
"""Families with an option of their own."""


def add_checkpoint_options(parser: Parser) -> None:
    """Add the options of the model."""
    parser.add_argument(
        "--use",
        action="append",
        metavar="FAMILY:CHECKPOINT",
        help=f"Trained model of a family, {', '.join(FAMILIES)}: {_FORMS}.",
    )
    for name, purpose in _SHORT.items():
        parser.add_argument(
            f"--{name}",
            dest="use",
            action="append",
            type=f"{name}:{{}}".format,
            metavar="CHECKPOINT",
            help=f"{purpose}, as --use {name}:CHECKPOINT.",
        )
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="Size of the model in a weight file, as in training. [default: the one that fits]",
    )
    parser.add_argument(
        "--model",
        default="{}",
        metavar="YAML",
        help="Settings in which the model of a file differs from its preset, as in training.",
    )
    parser.add_argument(
        "--template",
        metavar="FILE",
        help="With pixel2mesh: template of a model that was trained with one of another project.",
    )
    parser.add_argument(
        "--resolution",
        type=at_most(int, 1024),
        metavar="N",
        help="With nerf: cubes along a side of the grid that the mesh is extracted from. "
        "[default: 256]",
    )
    add_device_option(parser)


@dataclass(frozen=True, kw_only=True)
class ChosenModel:
    """The one model that the options name."""

    family: Family
    source: Path
    text: str
    """The path as it was given: rows of earlier evaluations are found by it."""
    options: ModelOptions


def chosen_model(arguments: argparse.Namespace) -> ChosenModel:
    """Return the one model that is given, without reading its files. Raises BadInput."""
    given = list(dict.fromkeys(arguments.use or ()))
    if len(given) != 1:
        raise BadInput("give one model: --use FAMILY:CHECKPOINT, --mesh or --nerf CHECKPOINT")
    name, colon, path = given[0].partition(":")
    if not colon:
        raise BadInput(
            f"--use {name}: give FAMILY:CHECKPOINT; the families are {', '.join(FAMILIES)}"
        )
    family, source = get_family(name), Path(path).expanduser()
    if not path or not source.exists():
        raise BadInput(f"--use {name}:{path}: no such checkpoint; give the {_FORMS}")
    if arguments.resolution is not None and not 4 <= arguments.resolution <= 1024:
        raise BadInput(f"--resolution {arguments.resolution}: give a number from 4 to 1024")
    template = arguments.template
    options = ModelOptions(
        preset=arguments.preset,
        changes=_changes(arguments.model),
        resolution=arguments.resolution,
        template=None if template is None else Path(template).expanduser(),
    )
    check_options(family, options)
    return ChosenModel(family=family, source=source, text=path, options=options)


def open_checkpoint(arguments: argparse.Namespace) -> "Reconstructor":
    """Return the model on its device. Raises BadInput."""
    device, chosen = open_device(arguments.device), chosen_model(arguments)
    return open_model(chosen.family.name, chosen.source, chosen.options).to(device)


def _changes(text: str) -> dict[str, Any]:
    try:
        changes = parse_yaml(text)
    except yaml.YAMLError:
        changes = None
    if not isinstance(changes, dict):
        raise BadInput(f"--model {text!r}: give settings such as {{transformer: {{channels: 80}}}}")
    return changes
