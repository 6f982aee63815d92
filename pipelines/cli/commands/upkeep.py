"""The subcommands that look after a dataset: verify, retry, remove, compact, snapshot --list."""

import argparse
import json
import os
import sys
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from core import quantities
from core.errors import BadInput
from core.options import Parser, add_root_options, add_wait_option
from core.safe_text import printable
from core.storage import Storage
from dataset.root import open_root
from dataset.snapshots.protection import manifests, protected_until

__all__ = [
    "compact",
    "compact_options",
    "remove",
    "remove_options",
    "retry",
    "retry_options",
    "show_snapshots",
    "verify",
    "verify_options",
]


def verify_options(parser: Parser) -> None:
    """The options of `lrm verify`."""
    add_root_options(parser)
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="files that are read at the same time [default: one per core]",
    )


def verify(arguments: argparse.Namespace) -> int:
    """Exit code 1 if anything is damaged."""
    from pipelines.maintenance.verify import verify as verify_dataset

    if arguments.workers < 1:
        raise BadInput("--workers must be at least 1")
    found = verify_dataset(open_root(arguments.root), arguments.workers)
    if arguments.json:
        print(json.dumps(found))
        return 1 if found["findings"] else 0
    for finding in found["findings"]:
        print(printable(finding["text"]))
    print(
        f"{found['shards']} shards with {found['samples']} samples and {found['geometry']} "
        f"companion files ({quantities.size(found['bytes'])}): "
        + (
            f"{len(found['findings'])} findings, {len(found['damaged'])} objects to redo"
            if found["findings"]
            else "all good"
        )
    )
    return 1 if found["findings"] else 0


def retry_options(parser: Parser) -> None:
    """The options of `lrm retry`."""
    _object_options(parser)
    parser.add_argument("--kind", metavar="KIND", help="all that failed in this way")


def retry(arguments: argparse.Namespace) -> int:
    """Forget failures."""
    from pipelines.maintenance.removal import retry_objects

    root = open_root(arguments.root)
    named = arguments.objects or arguments.file
    if not named and arguments.kind is None:
        raise BadInput("say which failures to forget: asset ids, --from FILE or --kind KIND")
    found = retry_objects(root, _ids(arguments) if named else None, arguments.kind)
    if arguments.json:
        print(json.dumps(found))
        return 0
    print(f"{len(found['cleared'])} failures forgotten; the next build tries again")
    if found["unchanged"]:
        print(f"{len(found['unchanged'])} objects had no such failure")
    if not found["cleared"] and found["kinds"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in found["kinds"].items())
        print(f"failures here: {kinds}")
    return 0


def remove_options(parser: Parser) -> None:
    """The options of `lrm remove`."""
    _object_options(parser)
    parser.add_argument("--reason", default="", metavar="TEXT", help="why, for the catalog")
    parser.add_argument("--undo", action="store_true", help="let them in again")


def remove(arguments: argparse.Namespace) -> int:
    """Take objects down."""
    from pipelines.maintenance.removal import remove_objects

    root = open_root(arguments.root)
    found = remove_objects(root, _ids(arguments), arguments.reason, arguments.undo)
    if arguments.json:
        print(json.dumps(found))
        return 0
    what, changed = next(iter(found.items()))
    already = f", {len(found['unchanged'])} were so already" if found["unchanged"] else ""
    print(f"{len(changed)} objects {what}{already}")
    if what == "removed" and changed:
        print("later snapshots are without them; `lrm compact` deletes their bytes")
    return 0


def compact_options(parser: Parser) -> None:
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


def compact(arguments: argparse.Namespace) -> int:
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


def show_snapshots(root: Storage, as_json: bool) -> int:
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


def _object_options(parser: Parser) -> None:
    add_root_options(parser)
    parser.add_argument(
        "objects", nargs="*", metavar="OBJECT", help="asset ids, such as objaverse:UID"
    )
    parser.add_argument(
        "--from",
        dest="file",
        metavar="FILE",
        help="a file of asset ids, one per line; - reads stdin",
    )


def _ids(arguments: argparse.Namespace) -> list[str]:
    from pipelines.maintenance.removal import read_ids

    if arguments.file is None:
        return read_ids(arguments.objects, [])
    if arguments.file == "-":
        return read_ids(arguments.objects, sys.stdin)
    try:
        with open(arguments.file, encoding="utf-8") as file:
            return read_ids(arguments.objects, file)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--from {arguments.file}: cannot read the list: {error}") from None
