"""`lrm verify`: read every shard again, against its index and checksums."""

import argparse
import json
import os

from core import quantities
from core.errors import BadInput
from core.options import Parser, add_root_options
from core.safe_text import printable
from dataset.root import open_root
from pipelines.cli.command import Command

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """The options of `lrm verify`."""
    add_root_options(parser)
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="files that are read at the same time [default: one per core]",
    )


def _run(arguments: argparse.Namespace) -> int:
    """Exit code 1 if anything is damaged."""
    from pipelines.maintenance.verify import companion_stages
    from pipelines.maintenance.verify import verify as verify_dataset

    if arguments.workers < 1:
        raise BadInput("--workers must be at least 1")
    found = verify_dataset(open_root(arguments.root), arguments.workers)
    if arguments.json:
        print(json.dumps(found))
        return 1 if found["findings"] else 0
    for finding in found["findings"]:
        print(printable(finding["text"]))
    companions = sum(found[stage.name] for stage in companion_stages())
    print(
        f"{found['shards']} shards with {found['samples']} samples and {companions} "
        f"companion files ({quantities.size(found['bytes'])}): "
        + (
            f"{len(found['findings'])} findings, {len(found['damaged'])} objects to redo"
            if found["findings"]
            else "all good"
        )
    )
    return 1 if found["findings"] else 0


COMMAND = Command(
    example="lrm verify --root DATASET",
    options=_options,
    run=_run,
)
