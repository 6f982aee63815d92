"""`lrm help`: the help of lrm or of one of its commands."""

import argparse

from core.options import Parser
from pipelines.cli.command import Command

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "words", nargs="*", metavar="COMMAND", help="A command, such as build or train nerf."
    )


def _run(arguments: argparse.Namespace) -> int:
    """Print the help; argparse exits."""
    arguments.make_parser().parse_args([*arguments.words, "--help"])
    return 0


COMMAND = Command(example="lrm help build", options=_options, run=_run)
