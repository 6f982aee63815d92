"""`lrm help`: the help of lrm or of one of its commands."""

import argparse

from core.errors import BadInput
from core.options import Parser
from pipelines.cli.command import Command

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of the command."""
    from pipelines.cli.registry import COMMANDS

    command = parser.add_argument(
        "name", nargs="?", metavar="COMMAND", help="A command, such as build."
    )
    command.suggested = [entry.name for entry in COMMANDS]  # type: ignore[attr-defined]
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="A recipe of `lrm train`.")


def _run(arguments: argparse.Namespace) -> int:
    """Print the help; argparse exits. Raises BadInput for a recipe of another command."""
    words = [word for word in (arguments.name, arguments.recipe) if word is not None]
    if arguments.recipe is not None and arguments.name != "train":
        raise BadInput(f"lrm {arguments.name} has no recipes: leave out {arguments.recipe}")
    arguments.make_parser().parse_args([*words, "--help"])
    return 0


COMMAND = Command(example="lrm help build", options=_options, run=_run)
