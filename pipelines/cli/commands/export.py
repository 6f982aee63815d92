"""`lrm export`: write a snapshot in the folder layout of another trainer."""

import argparse
import json
import os

from core.errors import BadInput, WorkFailed
from core.options import Parser, add_root_options
from dataset.root import open_root
from pipelines.cli.command import Command

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    add_root_options(parser)
    parser.add_argument("--snapshot", required=True, metavar="ID", help="id of the snapshot")
    parser.add_argument(
        "--layout", required=True, help="instantmesh or trellis: whose folders to write"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder that gets them")
    parser.add_argument(
        "--split",
        choices=("train", "validation", "all"),
        default="all",
        help="which samples of the snapshot [default: all]",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes that write objects, 0.6 GB each at 512 pixels [default: one per core]",
    )


def _run(arguments: argparse.Namespace) -> int:
    from pipelines.export.export_snapshot import export

    if arguments.workers < 1:
        raise BadInput("--workers must be at least 1")
    pinned = (arguments.snapshot, arguments.layout, arguments.split)
    found = export(open_root(arguments.root), *pinned, arguments.out, arguments.workers)
    if arguments.json:
        print(json.dumps(found))
    else:
        there = f" ({found['skipped']} lay there already)" if found["skipped"] else ""
        print(f"exported {found['exported']} of {found['objects']} objects{there}: {found['out']}")
    if found["failed"]:
        why = next(iter(found["failed"].values()))
        raise WorkFailed(f"{len(found['failed'])} objects could not be exported; the first: {why}")
    return 0


COMMAND = Command(
    example="lrm export --root DATASET --snapshot ID --layout instantmesh --out DIR",
    options=_options,
    run=_run,
)
