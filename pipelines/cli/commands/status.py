"""`lrm status`: how many objects are listed, kept, dropped and failed, and what is running."""

import argparse
import contextlib
import json
import math
import sys
import time
from typing import Any

from rich.console import Console
from rich.live import Live

from core.lock import lock_holder
from core.options import Parser, add_root_options
from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.root import open_root, read_build
from pipelines.cli.command import Command

__all__ = ["COMMAND", "print_status"]

_WATCH_SECONDS = 10.0


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
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")


def _run(arguments: argparse.Namespace) -> int:
    """Print the state of a dataset, once or until no command writes to it."""
    root = open_root(arguments.root)
    if arguments.watch is not None:
        _watch(root, arguments.watch, arguments.json)
    return print_status(root, arguments.json)


def print_status(root: Storage, as_json: bool) -> int:
    """Print the state of a dataset, as tables or as JSON; return the exit code 0."""
    _print(_status(root), as_json)
    return 0


def _watch(root: Storage, seconds: float, as_json: bool) -> None:
    """Show the status at intervals while a command writes to the dataset.

    On a terminal the next status replaces the last one.
    """
    from pipelines.cli.tables import status_view

    console = Console(highlight=False)
    is_live = console.is_terminal and not as_json
    live = Live(console=console, auto_refresh=False, transient=True)
    with live if is_live else contextlib.nullcontext():
        while (summary := _status(root))["building"] is not None:
            if is_live:
                live.update(status_view(summary), refresh=True)
            else:
                _print(summary, as_json)
                sys.stdout.flush()
            time.sleep(seconds)


def _print(summary: dict[str, Any], as_json: bool) -> None:
    from pipelines.cli.tables import show_status

    if as_json:
        print(json.dumps(summary))
    else:
        show_status(summary)


def _status(root: Storage) -> dict[str, Any]:
    """Return the JSON of `lrm status --json`."""
    from pipelines.building.dataset_status import load_dataset_state, summarise
    from pipelines.building.estimates.estimate import remaining_work
    from pipelines.building.estimates.spending import compare
    from pipelines.building.estimates.throughput import recent_throughput
    from pipelines.building.projection import columns_for_counts

    # Read before the catalog: a build that ends meanwhile counts as running, with all its objects.
    holder, build, catalog = lock_holder(root), read_build(root), Catalog(root)
    state = load_dataset_state(root, columns_for_counts())
    summary = summarise(state)
    work = remaining_work(state.decisions, state.objects.columns, state.config)
    is_running = holder is not None and holder.command.startswith("lrm build")
    is_ended = bool(build.get("ended"))
    return {
        **summary,
        **recent_throughput(catalog, summary["pending"], work),
        "cost": compare(build, catalog, state.config),
        "building": holder and holder.to_dict(),
        "last_build": "running" if is_running else "ended" if is_ended else "stopped",
    }


COMMAND = Command(
    example="lrm status --root DATASET",
    options=_options,
    run=_run,
)
