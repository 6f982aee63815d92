"""`lrm compact`: delete or rewrite shards whose samples are not used any more."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from core import quantities
from core.errors import BadInput
from core.options import Parser, add_old_option, add_root_options, add_wait_option
from dataset.root import open_root
from pipelines.cli.build.loss_option import add_accept_loss_option
from pipelines.cli.command import Command
from pipelines.cli.tables import counted, minute

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of `lrm compact`."""
    add_root_options(parser)
    add_wait_option(parser)
    parser.add_argument(
        "--garbage-ratio",
        type=float,
        default=0.3,
        metavar="SHARE",
        help="Rewrite a shard if more than this share of its samples is garbage: not the "
        "current sample of a kept object. A shard that a protected snapshot reads is rewritten "
        "when its protection has ended.",
    )
    add_old_option(parser, "--dead-share", "--garbage-ratio")
    parser.add_argument(
        "--release",
        action="append",
        default=[],
        metavar="SNAPSHOT",
        help="End the protection of this snapshot first; may be repeated.",
    )
    add_accept_loss_option(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="Print what would be done, and change nothing."
    )


def _run(arguments: argparse.Namespace) -> int:
    """Compact the dataset and print what was freed."""
    from pipelines.maintenance.compaction import compact_dataset

    if not 0 <= arguments.garbage_ratio <= 1:
        raise BadInput("--garbage-ratio must be between 0 and 1")
    result = compact_dataset(
        open_root(arguments.root),
        arguments.garbage_ratio,
        arguments.release,
        arguments.accept_loss,
        dry_run=arguments.dry_run,
        wait=arguments.wait,
    )
    if arguments.json:
        print(json.dumps(result))
    else:
        _show(result)
    if result["loss"]["refused"]:
        raise BadInput(result["loss"]["message"])
    return 0


def _show(result: Mapping[str, Any]) -> None:
    """Print the result of a compaction as lines."""
    dry_run = result["dry_run"]
    would = "would be " if dry_run else ""
    rewritten, deleted = result["rewritten"], result["deleted"]
    shards = counted(rewritten["shards"], "shard")
    print(f"{shards} ({counted(rewritten['samples'], 'used sample')}) {would}rewritten")
    files = counted(deleted["files"], "file")
    print(f"{files} ({quantities.size(deleted['bytes'])}) {would}deleted")
    for name, held in result["held"].items():
        print(
            f"snapshot {name} keeps {quantities.size(held['bytes'])} of garbage in "
            f"{counted(len(held['shards']), 'shard')} until {minute(held['protected_until'])}: "
            "until then, rewriting them would only add bytes; "
            f"--release {name} ends its protection now"
        )
    for name in result["outlived"]:
        lost = "would lose samples" if dry_run else "has lost samples"
        print(f"snapshot {name} is not protected any more and {lost}: it cannot be trained on")
    for shard, why in result["skipped"].items():
        print(f"{shard}: left unchanged: {why}")


COMMAND = Command(
    example="lrm compact --root DATASET --dry-run",
    options=_options,
    run=_run,
)
