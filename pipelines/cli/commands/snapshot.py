"""`lrm snapshot`: create a snapshot of the kept samples, or list the snapshots."""

import argparse
import json
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from core import quantities
from core.errors import BadInput
from core.options import Parser, add_root_options
from core.storage import Storage
from dataset.root import open_root
from dataset.snapshots.protection import MAX_PROTECT_DAYS, PROTECT_DAYS, manifests, protected_until
from pipelines.cli.command import Command

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    add_root_options(parser)
    parser.add_argument(
        "--where",
        metavar="EXPR",
        help="keep only samples for which this SQL condition holds, such as \"licence = 'by'\"",
    )
    parser.add_argument(
        "--validation-share",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="share of the objects, chosen by their ids, that validation gets [default: 0.01]",
    )
    parser.add_argument(
        "--protect-days",
        type=float,
        default=PROTECT_DAYS,
        metavar="N",
        help=f"days for which no shard of it may be deleted [default: {PROTECT_DAYS}]",
    )
    parser.add_argument("--list", action="store_true", help="list the snapshots there are")


def _run(arguments: argparse.Namespace) -> int:
    from pipelines.export.create_snapshot import freeze

    if not 0 <= arguments.validation_share < 1:
        raise BadInput("--validation-share must be at least 0 and less than 1")
    if not 0 <= arguments.protect_days <= MAX_PROTECT_DAYS:
        raise BadInput(f"--protect-days must be between 0 and {MAX_PROTECT_DAYS}")
    root = open_root(arguments.root)
    if arguments.list:
        return _show_snapshots(root, arguments.json)
    chosen = (arguments.where, arguments.validation_share, arguments.protect_days)
    manifest = freeze(root, *chosen)
    if arguments.json:
        print(json.dumps(manifest))
    else:
        splits = ", ".join(f"{count} {split}" for split, count in manifest["splits"].items())
        print(f"snapshot {manifest['snapshot']}: {manifest['samples']} samples ({splits})")
        print(f"credits: {manifest['credits']}; protected until {manifest['protected_until']}")
    return 0


def _show_snapshots(root: Storage, as_json: bool) -> int:
    """`lrm snapshot --list`."""
    rows = [_snapshot_row(manifest) for manifest in manifests(root)]
    if as_json:
        print(json.dumps({"snapshots": rows}))
        return 0
    table = Table("snapshot", "created", "samples", "size", "protected until", box=SIMPLE)
    for row in rows:
        until = "shards are gone" if row["compacted"] else row["protected_until"][:10]
        size = quantities.size(row["bytes"])
        table.add_row(row["snapshot"], row["created"][:10], str(row["samples"]), size, until)
    Console(highlight=False).print(table if rows else "no snapshot yet")
    return 0


def _snapshot_row(manifest: dict[str, Any]) -> dict[str, Any]:
    names = ("snapshot", "created", "samples", "bytes", "where")
    return {name: manifest[name] for name in names} | {
        "protected_until": protected_until(manifest).isoformat(),
        "compacted": manifest.get("compacted"),
    }


COMMAND = Command(
    example="lrm snapshot --root DATASET",
    options=_options,
    run=_run,
)
