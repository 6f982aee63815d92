"""`lrm export`: write a snapshot in the folder layout of another trainer."""

import argparse
import json
import os

from core.errors import BadInput, WorkFailed
from core.options import Parser, add_root_options
from core.options.bounds import at_most
from dataset.root import open_root
from pipelines.cli.command import Command
from pipelines.cli.tables import counted, print_warnings

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of `lrm export`."""
    add_root_options(parser)
    parser.add_argument(
        "--snapshot",
        required=True,
        metavar="SNAPSHOT",
        help="Snapshot: id, start of an id, name, or latest.",
    )
    parser.add_argument(
        "--layout", required=True, help="Folder layout to write: instantmesh or trellis."
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="Folder to write to.")
    parser.add_argument(
        "--split",
        choices=("train", "validation", "all"),
        default="all",
        help="Samples of the snapshot to write.",
    )
    parser.add_argument(
        "--workers",
        type=at_most(int, 1024),
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="Processes that write objects, 0.6 GB each at 512 pixels. [default: one per core]",
    )


def _run(arguments: argparse.Namespace) -> int:
    """Write the objects that are not there yet, and print how many."""
    from pipelines.export.export_snapshot import export

    if arguments.workers < 1:
        raise BadInput("--workers must be at least 1")
    pinned = (arguments.snapshot, arguments.layout, arguments.split)
    result = export(open_root(arguments.root), *pinned, arguments.out, arguments.workers)
    if arguments.json:
        print(json.dumps(result))
    else:
        before = f" ({result['skipped']} existed already)" if result["skipped"] else ""
        count = f"{result['exported']} of {counted(result['objects'], 'object')}"
        print(f"exported {count}{before}: {result['out']}")
    if others := result["others"]:
        count = counted(len(others), "object")
        warning = (
            f"{result['out']} also has {count} of an earlier export, such as {others[0]}, that "
            "this one does not include: delete these folders, or export to a new one"
        )
        print_warnings("export", [warning])
    if result["failed"]:
        why = next(iter(result["failed"].values()))
        count = counted(len(result["failed"]), "object")
        raise WorkFailed(f"{count} could not be exported; the first: {why}")
    return 0


COMMAND = Command(
    example="lrm export --root DATASET --snapshot SNAPSHOT --layout instantmesh --out DIR",
    options=_options,
    run=_run,
)
