"""Options that many commands take, and old names of options."""

import argparse
from typing import Any

from core.options.parser import warn_of_old_option

__all__ = [
    "add_json_option",
    "add_monitoring_options",
    "add_old_option",
    "add_root_options",
    "add_wait_option",
]

_PORTS = 2**16


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


def add_monitoring_options(parser: argparse.ArgumentParser) -> None:
    """Add `--metrics-port` and `--notify`, which are never stored: a hook may hold a token."""
    parser.add_argument(
        "--metrics-port",
        type=_port,
        metavar="PORT",
        help="Serve metrics for Prometheus at http://HOST:PORT/metrics, on all network interfaces, "
        "while the command runs. By default none are served.",
    )
    parser.add_argument(
        "--notify",
        metavar="COMMAND",
        help="Shell command that is run when the work ends, however it ends, with LRM_OUTCOME "
        "(done, failed, stopped or refused), LRM_MESSAGE and LRM_SUBJECT in its environment.",
    )


def _port(text: str) -> int:
    """Return the number of a port."""
    number = int(text) if text.isdecimal() else 0
    if not 0 < number < _PORTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give 1 to {_PORTS - 1}")
    return number


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


class _OldOption(argparse._StoreAction):
    """Stores a value under the name of the option that has replaced this one."""

    def __init__(self, replaced_by: str, **options: Any) -> None:
        super().__init__(**options)
        self._replaced_by = replaced_by

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        warn_of_old_option(parser, option_string, self._replaced_by)
        setattr(namespace, self.dest, values)
