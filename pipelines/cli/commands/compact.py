"""`lrm compact`: free the space of samples that are no longer needed."""

import argparse
import json

from core import quantities
from core.errors import BadInput
from core.options import Parser, add_root_options, add_wait_option
from dataset.root import open_root
from pipelines.cli.command import Command

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """The options of `lrm compact`."""
    add_root_options(parser)
    add_wait_option(parser)
    parser.add_argument(
        "--dead-share",
        type=float,
        default=0.3,
        metavar="SHARE",
        help="rewrite shards of which more than this share of the samples is dead [default: 0.3]",
    )
    parser.add_argument("--release", metavar="ID", help="end the protection of this snapshot first")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")


def _run(arguments: argparse.Namespace) -> int:
    """Free what nothing counts on."""
    from pipelines.maintenance.compaction import compact_dataset

    if not 0 <= arguments.dead_share <= 1:
        raise BadInput("--dead-share must be between 0 and 1")
    found = compact_dataset(
        open_root(arguments.root),
        arguments.dead_share,
        arguments.release,
        dry_run=arguments.dry_run,
        wait=arguments.wait,
    )
    if arguments.json:
        print(json.dumps(found))
        return 0
    would = "would be " if found["dry_run"] else ""
    rewritten, deleted = found["rewritten"], found["deleted"]
    print(f"{rewritten['shards']} shards ({rewritten['samples']} live samples) {would}rewritten")
    print(f"{deleted['files']} files ({quantities.size(deleted['bytes'])}) {would}deleted")
    for name, held in found["held"].items():
        print(
            f"snapshot {name} holds back {quantities.size(held['bytes'])} in {len(held['shards'])} "
            f"shards until {held['protected_until']} (--release {name} ends that now)"
        )
    for name in found["outlived"]:
        print(
            f"snapshot {name}, no longer protected, cannot be read any more"
            if not would
            else f"snapshot {name}, no longer protected, could not be read any more"
        )
    for shard, why in found["skipped"].items():
        print(f"{shard} stays as it is: {why}")
    return 0


COMMAND = Command(
    example="lrm compact --root DATASET --dry-run",
    options=_options,
    run=_run,
)
