"""`lrm diff`: what differs between two snapshots, or a snapshot and the kept samples."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from core.choices import choose
from core.errors import BadInput
from core.options import Parser, add_root_options
from core.safe_text import printable
from dataset.root import open_root
from dataset.snapshots.references import NOW
from pipelines.cli.command import Command
from pipelines.cli.tables import counted

__all__ = ["COMMAND"]

_EXAMPLES = 3
_CAUSES = {"rig": "other rig", "file": "file changed", "settings": "settings changed"}
_KINDS = ("added", "removed", "pending", "rendered", "changed")


def _options(parser: Parser) -> None:
    """Add the options of `lrm diff`."""
    parser.add_argument("before", metavar="A", help="Snapshot, or `now`: the kept samples.")
    parser.add_argument(
        "after", metavar="B", nargs="?", default=NOW, help="Snapshot, or `now`. [default: now]"
    )
    add_root_options(parser)
    parser.add_argument(
        "--ids",
        metavar="KIND",
        help="Print only these ids, one per line: added, removed, pending (with `now`: they wait "
        "for a stage), rendered (again) or changed (another caption or other metadata).",
    )


def _run(arguments: argparse.Namespace) -> int:
    """Print what differs, with three ids of each kind."""
    from pipelines.export.compare_snapshots import compare_snapshots, summary_of
    from pipelines.selection.object_names import id_line

    if arguments.ids is not None:
        choose("--ids", arguments.ids, dict.fromkeys(_KINDS))
        if arguments.json:
            raise BadInput("--ids and --json exclude each other: the JSON has all ids")
    root = open_root(arguments.root)
    summary = summary_of(*compare_snapshots(root, arguments.before, arguments.after))
    if arguments.json:
        print(json.dumps(summary))
    elif arguments.ids:
        groups = summary[arguments.ids]
        lists = groups.values() if isinstance(groups, dict) else [groups]
        ids = sorted({asset_id for ids in lists for asset_id in ids})
        sys.stdout.write("".join(f"{id_line(asset_id)}\n" for asset_id in ids))
    else:
        _show(summary)
    return 0


def _show(summary: Mapping[str, Any]) -> None:
    """Print the difference as lines."""
    for name in ("before", "after"):
        side = summary[name]
        names = "".join(f" {word}" for word in side["names"])
        rig = f", rig {side['rig']}" if side["rig"] else ""
        print(f"{name} {side['snapshot']}{names}: {counted(side['samples'], 'sample')}{rig}")
    lines = [
        _line("added", summary["added"]),
        _line("removed", summary["removed"]),
        _line("not a sample now, because a stage is to be done", summary["pending"]),
        *(_line(f"rendered again, {_CAUSES[why]}", i) for why, i in summary["rendered"].items()),
        *(_line(f"{name} changed", ids) for name, ids in summary["changed"].items()),
    ]
    for line in filter(None, lines) if any(lines) else ["no difference"]:
        print(line)
    if summary["moved"]:
        print(_line("moved to another shard, with the same bytes", summary["moved"]))


def _line(what: str, ids: list[str]) -> str:
    """Return a line with the number of ids and the first of them; empty without ids."""
    if not ids:
        return ""
    more = ", ..." if len(ids) > _EXAMPLES else ""
    examples = ", ".join(printable(asset_id) for asset_id in ids[:_EXAMPLES])
    return f"{what}: {len(ids):,}: {examples}{more}"


COMMAND = Command(
    example="lrm diff latest --root DATASET",
    options=_options,
    run=_run,
)
