"""`lrm inspect`: show everything known of objects."""

import argparse
import json
from collections.abc import Iterable, Mapping
from typing import Any

from core.errors import BadInput
from core.options import Parser
from dataset.root import open_root
from pipelines.cli.command import Command
from pipelines.cli.object_ids import add_object_options, given_ids

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of `lrm inspect`."""
    add_object_options(parser)
    parser.add_argument(
        "--sheet", metavar="FILE", help="Write a picture of all views of the object."
    )


def _run(arguments: argparse.Namespace) -> int:
    """Print what the catalog knows of objects; write the contact sheet of one if asked."""
    from pipelines.building.dataset_status import inspect_objects
    from pipelines.cli.tables import show_object
    from pipelines.report.object_sheet import write_sheet

    root = open_root(arguments.root)
    ids = given_ids(root, arguments, listed=True)
    if arguments.sheet and len(ids) != 1:
        raise BadInput(f"--sheet shows one object, but {len(ids):,} were given")
    states: Iterable[Mapping[str, Any]] = inspect_objects(root, ids)
    if arguments.sheet:
        states = list(states)
        write_sheet(root, states[0], arguments.sheet)
    if arguments.json:
        _print_json(states, several=len(arguments.objects) > 1 or arguments.file is not None)
    else:
        for state in states:
            show_object(state)
        if not ids:
            print("0 objects given")
    return 0


def _print_json(states: Iterable[Mapping[str, Any]], *, several: bool) -> None:
    """Print the object, or an array with a line per object if several were asked for."""
    if not several:
        for state in states:
            print(json.dumps(state))
        return
    separator = "["
    for state in states:
        print(separator + json.dumps(state), end="", flush=True)
        separator = ",\n"
    print("[]" if separator == "[" else "]")


COMMAND = Command(
    example="lrm inspect --root DATASET objaverse:UID --sheet sheet.png",
    options=_options,
    run=_run,
)
