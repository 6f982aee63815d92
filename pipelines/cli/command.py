"""The parts of a subcommand of `lrm`: its entry in the registry, and what its file defines."""

import argparse
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.options import Parser

__all__ = ["Command", "CommandEntry"]


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the file of a subcommand defines as `COMMAND`: its options and its function."""

    example: str
    options: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]
    common: Sequence[str] = ()
    """The options that `--help` shows; without any, it shows all of them."""


@dataclass(frozen=True)
class CommandEntry:
    """A subcommand by name. Its file is imported when the command is used, and not before."""

    name: str
    purpose: str
    only_prints: bool = False
    """Whether it writes nothing, so that there is nothing to continue after a stop."""

    def load(self) -> Command:
        """Import the command's file."""
        command = importlib.import_module(f"pipelines.cli.commands.{self.name}").COMMAND
        assert isinstance(command, Command)
        return command

    def add(self, subparsers: Any) -> None:
        """Add this command to the parser, without its options."""
        subparsers.add_parser(
            self.name, help=self.purpose, description=self.purpose, populate=self._populate
        )

    def _populate(self, parser: Parser) -> None:
        command = self.load()
        command.options(parser)
        parser.epilog = f"example:\n  {command.example}"
        parser.set_defaults(run=command.run)
        if command.common:
            parser.set_common(command.common)
