"""`lrm completion`: a script that makes a shell complete commands, options and their values."""

import argparse
import sys
from collections.abc import Iterator

from core.options import Parser
from pipelines.cli.command import Command

__all__ = [
    "COMMAND",
]

_SHELLS = ("bash", "zsh", "tcsh")
_FOLDERS = (
    *("CACHE", "CHECKPOINTS", "DIR", "FOLDER", "LATENT_CACHE", "PARTIAL_FOLDER", "ROOT", "URI"),
)
_FILES = (
    *("CAPTIONS", "CHECKPOINT", "DEEPSPEED", "FILE", "IMAGE", "IMAGE_OR_DIR", "INIT", "LINEAR"),
    *("OUT", "SOURCE", "VGG"),
)
"""Words that stand for the value of an option in the help, by what a shell completes."""


def _options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help="The shell.")


def _run(arguments: argparse.Namespace) -> int:
    """Print the script; name the commands that it leaves out."""
    import shtab

    parser = arguments.make_parser()
    for command, package in _fill(parser):
        note = f"the options of {command} are left out: {package} is not installed"
        print(f"lrm completion: note: {note}", file=sys.stderr)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _fill(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Add all options and their completion; yield the commands that lack a package, and which."""
    if isinstance(parser, Parser):
        try:
            parser.populate()
        except ModuleNotFoundError as error:
            yield parser.prog, str(error.name)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _fill(below)
        else:
            _complete_values(action)


def _complete_values(action: argparse.Action) -> None:
    """Set the choices of an option, or shtab's attribute for files and folders."""
    import shtab

    action.choices = action.choices or getattr(action, "suggested", None)
    shown = action.metavar or action.dest.upper()
    if shown in _FOLDERS:
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    elif shown in _FILES:
        action.complete = shtab.FILE  # type: ignore[attr-defined]


COMMAND = Command(
    example='eval "$(lrm completion bash)"',
    options=_options,
    run=_run,
)
