"""`lrm verify`: read the catalog and every shard, and compare them with their checksums."""

import argparse
import json
import os
from collections.abc import Mapping
from typing import Any

from core import quantities
from core.errors import BadInput
from core.options import Parser, add_root_options
from core.options.bounds import at_most
from core.safe_text import printable
from dataset.root import open_root
from pipelines.cli.command import Command
from pipelines.cli.tables import counted

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of `lrm verify`."""
    add_root_options(parser)
    parser.add_argument(
        "--workers",
        type=at_most(int, 1024),
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="Files to read at the same time. [default: one per core]",
    )


def _run(arguments: argparse.Namespace) -> int:
    """Print what is damaged; return 1 if anything is."""
    from pipelines.maintenance.verify import companion_stages
    from pipelines.maintenance.verify import verify as verify_dataset

    if arguments.workers < 1:
        raise BadInput("--workers must be at least 1")
    result = verify_dataset(open_root(arguments.root), arguments.workers)
    exit_code = 1 if result["findings"] else 0
    if arguments.json:
        print(json.dumps(result))
        return exit_code
    for line in [*(finding["text"] for finding in result["findings"]), *_earlier(result)]:
        print(printable(line))
    companions = counted(sum(result[stage.name] for stage in companion_stages()), "companion file")
    shards, samples = counted(result["shards"], "shard"), counted(result["samples"], "sample")
    problems = counted(len(result["findings"]), "problem")
    to_repair = counted(len(result["damaged"]), "object")
    outcome = f"{problems}, {to_repair} to build again" if result["findings"] else "no problems"
    size = quantities.size(result["bytes"])
    commits = counted(result["catalog"]["commits"], "commit")
    print(f"{commits}, {shards} with {samples} and {companions} ({size}): {outcome}")
    return exit_code


def _earlier(result: Mapping[str, Any]) -> list[str]:
    """Return what repairs of the catalog could not recover."""
    return [
        f"an earlier `lrm repair` recorded: {text}" for text in result["catalog"]["lost_before"]
    ]


COMMAND = Command(
    example="lrm verify --root DATASET",
    options=_options,
    run=_run,
)
