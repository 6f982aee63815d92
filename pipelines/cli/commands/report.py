"""`lrm report`: write one HTML page about a dataset."""

import argparse
import json

from core.errors import BadInput
from core.options import Parser, add_root_options
from dataset.root import open_root
from pipelines.cli.command import Command

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    add_root_options(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder that gets it")
    parser.add_argument(
        "--thumbnails",
        type=int,
        default=8,
        metavar="N",
        help="objects per reason to show, rendered now if their files are at hand; 0 shows some "
        "without pictures and needs no Blender [default: 8]",
    )
    parser.add_argument(
        "--shards",
        type=int,
        default=12,
        metavar="N",
        help="shards of which samples are shown [default: 12]",
    )


def _run(arguments: argparse.Namespace) -> int:
    from pipelines.report.write_report import write_report

    if min(arguments.thumbnails, arguments.shards) < 0:
        raise BadInput("--thumbnails and --shards must be at least 0")
    sizes = (arguments.thumbnails, arguments.shards)
    found = write_report(open_root(arguments.root), arguments.out, *sizes)
    print(json.dumps(found) if arguments.json else found["report"])
    return 0


COMMAND = Command(
    example="lrm report --root DATASET --out REPORT",
    options=_options,
    run=_run,
)
