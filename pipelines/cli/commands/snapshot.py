"""`lrm snapshot`: create a snapshot of the kept samples, list the snapshots, or delete some."""

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
from dataset.snapshots.deletion import delete_snapshots
from dataset.snapshots.protection import MAX_PROTECT_DAYS, PROTECT_DAYS, manifests, protected_until
from dataset.snapshots.references import names_of
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
        "--rig", metavar="NAME", help="Rig of the samples. [default: that of the last build]"
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="Name of the snapshot, which all commands understand; a name never moves to another "
        "snapshot.",
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
    parser.add_argument(
        "--delete",
        nargs="+",
        action="extend",
        metavar="SNAPSHOT",
        help="Delete these snapshots instead of creating one; their samples stay until lrm "
        "compact. A run that trains on one cannot be resumed.",
    )
    parser.add_argument(
        "--force", action="store_true", help="With --delete: delete protected snapshots, too."
    )


def _run(arguments: argparse.Namespace) -> int:
    """Create a snapshot and print its id, or list or delete snapshots."""
    _check(arguments)
    root = open_root(arguments.root)
    if arguments.list:
        return _show_snapshots(root, arguments.json)
    if arguments.delete:
        return _delete(root, arguments)
    from pipelines.export.create_snapshot import create_snapshot

    manifest = create_snapshot(
        root,
        arguments.where,
        arguments.validation_share,
        arguments.protect_days,
        rig=arguments.rig,
        name=arguments.name,
    )
    if arguments.json:
        print(json.dumps(manifest))
    else:
        splits = ", ".join(f"{count} {split}" for split, count in manifest["splits"].items())
        samples = counted(manifest["samples"], "sample")
        names = "".join(f" {name}" for name in manifest["names"])
        print(f"snapshot {manifest['snapshot']}{names}: {samples} ({splits})")
        print(f"credits: {manifest['credits']}")
        print(f"protected until {minute(manifest['protected_until'])}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise BadInput for values out of range and options that exclude each other."""
    if not 0 <= arguments.validation_share < 1:
        raise BadInput("--validation-share must be at least 0 and less than 1")
    if not 0 <= arguments.protect_days <= MAX_PROTECT_DAYS:
        raise BadInput(f"--protect-days must be between 0 and {MAX_PROTECT_DAYS}")
    of_creation = {
        f"--{name}": getattr(arguments, name) is not None for name in ("where", "rig", "name")
    }
    instead = {"--list": arguments.list, "--delete": bool(arguments.delete)}
    given = [name for name, is_given in (instead | of_creation).items() if is_given]
    if len(given) > 1 and any(instead.values()):
        raise BadInput(f"{given[0]} and {given[1]} exclude each other")
    if arguments.force and not arguments.delete:
        raise BadInput("--force needs --delete")


def _delete(root: Storage, arguments: argparse.Namespace) -> int:
    """Delete snapshots and print their ids."""
    from pipelines.export.create_snapshot import snapshot_lock

    with snapshot_lock(root):
        deleted = delete_snapshots(root, arguments.delete, force=arguments.force)
    if arguments.json:
        print(json.dumps({"deleted": deleted}))
        return 0
    for snapshot_id in deleted:
        print(f"deleted snapshot {snapshot_id}: runs that train on it cannot be resumed any more")
    print("`lrm compact` deletes the files that only these snapshots need")
    return 0


def _show_snapshots(root: Storage, as_json: bool) -> int:
    """Print the snapshots of a dataset, as a table or as JSON."""
    rows = [_snapshot_row(manifest) for manifest in manifests(root)]
    if as_json:
        print(json.dumps({"snapshots": rows}))
        return 0
    titles = ("snapshot", "names", "rig", "created", "samples", "size", "protected until")
    table = Table(*titles, box=SIMPLE)
    for row in rows:
        until = "samples were deleted" if row["compacted"] else row["protected_until"][:10]
        names = ", ".join(row["names"])
        numbers = (row["created"][:10], str(row["samples"]), quantities.size(row["bytes"]))
        table.add_row(row["snapshot"], names, row["rig"] or "", *numbers, until)
    Console(highlight=False).print(table if rows else "no snapshot yet")
    return 0


def _snapshot_row(manifest: dict[str, Any]) -> dict[str, Any]:
    names = ("snapshot", "created", "samples", "bytes", "where")
    return {name: manifest[name] for name in names} | {
        "names": names_of(manifest),
        "rig": manifest.get("rig"),
        "protected_until": protected_until(manifest).isoformat(),
        "compacted": manifest.get("compacted"),
    }


COMMAND = Command(
    example="lrm snapshot --root DATASET --name v1",
    options=_options,
    run=_run,
)
