"""`lrm status`: how many objects are listed, kept, dropped and failed, and what is running."""

import argparse
import contextlib
import sys
import time

from rich.console import Console
from rich.live import Live

from core.options import Parser, add_root_options
from core.storage import Storage
from dataset.root import open_root
from pipelines.cli.build.status_summary import print_status, print_summary, status_summary
from pipelines.cli.command import Command

__all__ = ["COMMAND"]

_WATCH_SECONDS = 10.0
_MAX_WATCH_SECONDS = 30 * 86400.0


def _options(parser: Parser) -> None:
    """Add the options of `lrm status`."""
    add_root_options(parser)
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=_WATCH_SECONDS,
        metavar="SECONDS",
        help="Show the status again every SECONDS (10 without a number) until no command writes to "
        "the dataset; with --json, print one object per line.",
    )


def _seconds(text: str) -> float:
    """Return a positive number of seconds."""
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) <= _MAX_WATCH_SECONDS:
            return seconds
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a positive number of seconds, at most 30 days"
    )


def _run(arguments: argparse.Namespace) -> int:
    """Print the state of a dataset, once or until no command writes to it."""
    root = open_root(arguments.root)
    if arguments.watch is not None:
        _watch(root, arguments.watch, arguments.json)
    return print_status(root, arguments.json)


def _watch(root: Storage, seconds: float, as_json: bool) -> None:
    """Show the status at intervals while a command writes to the dataset.

    On a terminal the next status replaces the last one.
    """
    from pipelines.cli.tables import status_view

    console = Console(highlight=False)
    is_live = console.is_terminal and not as_json
    live = Live(console=console, auto_refresh=False, transient=True)
    with live if is_live else contextlib.nullcontext():
        while (summary := status_summary(root))["writer"] is not None:
            if is_live:
                live.update(status_view(summary), refresh=True)
            else:
                print_summary(summary, as_json)
                sys.stdout.flush()
            time.sleep(seconds)


COMMAND = Command(
    example="lrm status --root DATASET",
    options=_options,
    run=_run,
)
