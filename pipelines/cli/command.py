"""What a subcommand of `lrm` is."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.options import Parser

__all__ = ["Command"]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A subcommand: its help, its options and what it does."""

    name: str
    purpose: str
    example: str
    options: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]

    def add(self, subparsers: Any) -> None:
        """Add this command to the parser."""
        parser = subparsers.add_parser(
            self.name,
            help=self.purpose,
            description=self.purpose,
            epilog=f"example:\n  {self.example}",
            populate=self.options,
        )
        parser.set_defaults(run=self.run)
