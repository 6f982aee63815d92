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
    copies = (
        f"{counted(rewritten['samples'], 'used sample')}, {quantities.size(rewritten['bytes'])}"
    )
    print(f"{shards} ({copies}) {would}rewritten")
    files = counted(deleted["files"], "file")
    freed = f"{quantities.size(result['freed_bytes'])} {would}freed"
    print(f"{files} ({quantities.size(deleted['bytes'])}) {would}deleted: {freed}")
    for held in result["held_together"]:
        print(_held_line(held))
    for name in result["outlived"]:
        lost = "would lose samples" if dry_run else "has lost samples"
        print(f"snapshot {name} is not protected any more and {lost}: it cannot be trained on")
    for shard, why in result["skipped"].items():
        print(f"{shard}: left unchanged: {why}")


def _held_line(held: Mapping[str, Any]) -> str:
    """Return which snapshots keep garbage, how much, and the options that free it."""
    names = held["snapshots"]
    who = f"snapshot {names[0]} keeps" if len(names) == 1 else f"snapshots {', '.join(names)} keep"
    what = [
        f"{quantities.size(held[kind]['bytes'])} in {counted(held[kind]['files'], noun)}"
        for kind, noun in (("shards", "shard"), ("companions", "companion file"))
        if held[kind]["files"]
    ]
    release = " ".join(f"--release {name}" for name in names)
    until = minute(held["protected_until"])
    return f"{who} garbage until {until}: {' and '.join(what)}; {release} frees it now"


COMMAND = Command(
    example="lrm compact --root DATASET --dry-run",
    options=_options,
    run=_run,
)
