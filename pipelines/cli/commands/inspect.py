"""`lrm inspect`: show everything known of one object."""

import argparse
import json

from core.options import Parser, add_root_options
from dataset.root import open_root
from pipelines.cli.command import Command

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of `lrm inspect`."""
    add_root_options(parser)
    parser.add_argument(
        "object", metavar="OBJECT", help="Asset id of the object, such as objaverse:UID."
    )
    parser.add_argument("--sheet", metavar="FILE", help="Write a picture of all its views.")


def _run(arguments: argparse.Namespace) -> int:
    """Print what the catalog knows of an object; write its contact sheet if asked."""
    from pipelines.building.dataset_status import inspect_object
    from pipelines.cli.tables import show_object
    from pipelines.report.object_sheet import write_sheet

    root = open_root(arguments.root)
    state = inspect_object(root, arguments.object)
    if arguments.sheet:
        write_sheet(root, state, arguments.sheet)
    if arguments.json:
        print(json.dumps(state))
    else:
        show_object(state)
    return 0


COMMAND = Command(
    example="lrm inspect --root DATASET objaverse:UID --sheet sheet.png",
    options=_options,
    run=_run,
)
