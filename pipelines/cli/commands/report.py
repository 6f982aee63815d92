"""`lrm report`: write one HTML page about a dataset."""

import argparse
import json

from core.errors import BadInput
from core.options import Parser, add_root_options
from core.options.bounds import at_most
from dataset.root import open_root
from pipelines.cli.command import Command

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of `lrm report`."""
    add_root_options(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="Folder to write the page to.")
    parser.add_argument(
        "--thumbnails",
        type=at_most(int, 10_000),
        default=8,
        metavar="N",
        help="Objects to show per reason, rendered now if their files are available; 0 lists them "
        "without pictures and needs no Blender.",
    )
    parser.add_argument(
        "--shards",
        type=at_most(int, 10_000),
        default=12,
        metavar="N",
        help="Shards to show samples of.",
    )


def _run(arguments: argparse.Namespace) -> int:
    """Write the page and print its path."""
    from pipelines.report.write_report import write_report

    if min(arguments.thumbnails, arguments.shards) < 0:
        raise BadInput("--thumbnails and --shards must be at least 0")
    sizes = (arguments.thumbnails, arguments.shards)
    result = write_report(open_root(arguments.root), arguments.out, *sizes)
    print(json.dumps(result) if arguments.json else result["report"])
    return 0


COMMAND = Command(
    example="lrm report --root DATASET --out REPORT",
    options=_options,
    run=_run,
)
