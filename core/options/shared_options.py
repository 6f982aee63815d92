"""Options that many commands take, and old names of options."""

import argparse
from typing import Any

from core.options.parser import warn_of_old_option

__all__ = ["add_json_option", "add_old_option", "add_root_options", "add_wait_option"]


def add_root_options(parser: argparse.ArgumentParser) -> None:
    """Add `--root` and `--json`, which every command on a dataset takes."""
    parser.add_argument("--root", required=True, help="Folder or URI of the dataset.")
    add_json_option(parser)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="Print the result as JSON.")


def add_wait_option(parser: argparse.ArgumentParser) -> None:
    """Add `--wait`, for commands that hold the dataset's lock."""
    parser.add_argument(
        "--wait",
        action="store_true",
        help="Wait while another command holds the dataset's lock, instead of failing.",
    )


def add_old_option(parser: argparse.ArgumentParser, old: str, new: str) -> None:
    """Accept the old name of an option that was added under its new name; it is not in the help."""
    option = parser._option_string_actions[new]
    parser.add_argument(
        old,
        action=_OldOption,
        type=option.type or str,
        replaced_by=new,
        dest=option.dest,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


class _OldOption(argparse.Action):
    """Stores a value under the name of the option that has replaced this one."""

    def __init__(self, replaced_by: str, **options: Any) -> None:
        super().__init__(**options)
        self._replaced_by = replaced_by

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        warn_of_old_option(parser, option_string, self._replaced_by)
        setattr(namespace, self.dest, values)
