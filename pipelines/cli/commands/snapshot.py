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
from pipelines.cli.tables import counted, minute

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of `lrm snapshot`."""
    add_root_options(parser)
    parser.add_argument(
        "--where",
        metavar="EXPR",
        help="Keep only samples that this SQL condition selects, such as \"licence = 'by'\"; "
        "`license` is understood, too.",
    )
    parser.add_argument(
        "--validation-share",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="Share of the objects in the validation split, chosen by a hash of their ids.",
    )
    parser.add_argument(
        "--protect-days",
        type=float,
        default=PROTECT_DAYS,
        metavar="N",
        help="Days for which lrm compact deletes none of its samples.",
    )
    parser.add_argument(
        "--list", action="store_true", help="List the snapshots instead of creating one."
    )


def _run(arguments: argparse.Namespace) -> int:
    """Create a snapshot and print its id, or list the snapshots."""
    from pipelines.export.create_snapshot import create_snapshot

    if not 0 <= arguments.validation_share < 1:
        raise BadInput("--validation-share must be at least 0 and less than 1")
    if not 0 <= arguments.protect_days <= MAX_PROTECT_DAYS:
        raise BadInput(f"--protect-days must be between 0 and {MAX_PROTECT_DAYS}")
    root = open_root(arguments.root)
    if arguments.list:
        return _show_snapshots(root, arguments.json)
    chosen = (arguments.where, arguments.validation_share, arguments.protect_days)
    manifest = create_snapshot(root, *chosen)
    if arguments.json:
        print(json.dumps(manifest))
    else:
        splits = ", ".join(f"{count} {split}" for split, count in manifest["splits"].items())
        samples = counted(manifest["samples"], "sample")
        print(f"snapshot {manifest['snapshot']}: {samples} ({splits})")
        print(f"credits: {manifest['credits']}")
        print(f"protected until {minute(manifest['protected_until'])}")
    return 0


def _show_snapshots(root: Storage, as_json: bool) -> int:
    """Print the snapshots of a dataset, as a table or as JSON."""
    rows = [_snapshot_row(manifest) for manifest in manifests(root)]
    if as_json:
        print(json.dumps({"snapshots": rows}))
        return 0
    table = Table("snapshot", "created", "samples", "size", "protected until", box=SIMPLE)
    for row in rows:
        until = "samples were deleted" if row["compacted"] else row["protected_until"][:10]
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
