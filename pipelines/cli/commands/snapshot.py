"""`lrm snapshot`: create a snapshot of the kept samples, list the snapshots, or delete some."""

import argparse
import json
import sys
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from core import quantities
from core.errors import BadInput
from core.options import Parser, add_root_options
from core.options.bounds import at_most
from core.storage import Storage
from dataset.root import open_root
from dataset.snapshots.deletion import delete_snapshots
from dataset.snapshots.manifests import read_manifests
from dataset.snapshots.protection import MAX_PROTECT_DAYS, PROTECT_DAYS, protected_until
from dataset.snapshots.references import names_of
from dataset.snapshots.rows import rig_of
from pipelines.cli.command import Command
from pipelines.cli.tables import counted, minute, print_warnings

__all__ = ["COMMAND"]

_VALIDATION_SHARE = 0.01
_OF_CREATION = ("where", "rig", "name", "validation_share", "protect_days")
_WIDE = 10_000
"""Width in characters at which no table is wrapped."""


def _options(parser: Parser) -> None:
    """Add the options of `lrm snapshot`."""
    add_root_options(parser)
    parser.add_argument(
        "--where",
        metavar="EXPR",
        help="Keep only samples that this SQL condition selects, such as \"licence = 'by'\"; "
        "`license` is the same.",
    )
    parser.add_argument(
        "--rig", metavar="NAME", help="Rig of the samples. [default: that of the last build]"
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="Name of the snapshot, which all commands accept in place of its id; a name never "
        "moves to another snapshot.",
    )
    parser.add_argument(
        "--validation-share",
        type=at_most(float, 1e6),
        metavar="SHARE",
        help="Share of the objects in the validation split, chosen by a hash of their ids.",
    )
    parser.add_argument(
        "--protect-days",
        type=at_most(float, 1e6),
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
        "--force",
        action="store_true",
        help="With --delete: delete protected snapshots, too, those with other names, and those "
        "that cannot be read.",
    )
    parser.set_default_text("--validation-share", f"{_VALIDATION_SHARE:g}")
    parser.set_default_text("--protect-days", f"{PROTECT_DAYS:g}")


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
        _or(arguments.validation_share, _VALIDATION_SHARE),
        _or(arguments.protect_days, PROTECT_DAYS),
        rig=arguments.rig,
        name=arguments.name,
    )
    if repaired := manifest.get("repaired", ()):
        print_warnings("snapshot", [f"written again: {problem}" for problem in repaired])
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
    if not 0 <= _or(arguments.validation_share, 0.0) < 1:
        raise BadInput("--validation-share must be at least 0 and less than 1")
    if not 0 <= _or(arguments.protect_days, 0.0) <= MAX_PROTECT_DAYS:
        raise BadInput(f"--protect-days must be between 0 and {MAX_PROTECT_DAYS}")
    of_creation = {
        f"--{name.replace('_', '-')}": getattr(arguments, name) is not None for name in _OF_CREATION
    }
    instead = {"--list": arguments.list, "--delete": bool(arguments.delete)}
    given = [name for name, is_given in (instead | of_creation).items() if is_given]
    if len(given) > 1 and any(instead.values()):
        raise BadInput(f"{given[0]} and {given[1]} exclude each other")
    if arguments.force and not arguments.delete:
        raise BadInput("--force needs --delete")


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _delete(root: Storage, arguments: argparse.Namespace) -> int:
    """Delete snapshots and print their ids and names."""
    from pipelines.export.create_snapshot import snapshot_lock

    with snapshot_lock(root):
        deleted = delete_snapshots(root, arguments.delete, force=arguments.force)
    if arguments.json:
        print(json.dumps({"deleted": list(deleted), "names": deleted}))
        return 0
    for snapshot_id, names in deleted.items():
        what = " ".join([snapshot_id, *names])
        print(f"deleted snapshot {what}: runs that train on it cannot be resumed any more")
    print("`lrm compact` deletes the files that only these snapshots need")
    return 0


def _show_snapshots(root: Storage, as_json: bool) -> int:
    """Print the snapshots of a dataset, as a table or as JSON."""
    known, unreadable = read_manifests(root)
    rows = [_snapshot_row(root, manifest) for manifest in known]
    if as_json:
        damaged = [{"snapshot": one.snapshot_id, "error": str(one)} for one in unreadable]
        print(json.dumps({"snapshots": rows, "unreadable": damaged}))
        return 0
    table = _snapshot_table(rows)
    for one in unreadable:
        table.add_row(one.snapshot_id, "unreadable")
    # Only a terminal has a width.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    console.print(table if rows or unreadable else "no snapshot yet", crop=False)
    print_warnings("snapshot", [str(one) for one in unreadable])
    return 0


def _snapshot_table(rows: list[dict[str, Any]]) -> Table:
    """Return a table of snapshots, in which ids and dates are never cut."""
    table = Table(box=SIMPLE)
    table.add_column("snapshot", no_wrap=True, min_width=16)
    table.add_column("names", overflow="fold")
    table.add_column("rig", overflow="fold")
    table.add_column("created", no_wrap=True, min_width=10)
    table.add_column("samples", no_wrap=True)
    table.add_column("size", no_wrap=True)
    table.add_column("protected until", min_width=10)
    for row in rows:
        until = "samples gone" if row["compacted"] else row["protected_until"][:10]
        names = ", ".join(row["names"])
        numbers = (row["created"][:10], str(row["samples"]), quantities.size(row["bytes"]))
        table.add_row(row["snapshot"], names, row["rig"] or "", *numbers, until)
    return table


def _snapshot_row(root: Storage, manifest: dict[str, Any]) -> dict[str, Any]:
    names = ("snapshot", "created", "samples", "bytes", "where")
    return {name: manifest[name] for name in names} | {
        "names": names_of(manifest),
        "rig": rig_of(root, manifest),
        "protected_until": protected_until(manifest).isoformat(),
        "compacted": manifest.get("compacted"),
    }


COMMAND = Command(
    example="lrm snapshot --root DATASET --name v1",
    options=_options,
    run=_run,
)
