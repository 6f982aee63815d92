"""`lrm remove`: take objects down."""

import argparse
import json

from core.options import Parser
from dataset.root import open_root
from pipelines.cli.command import Command
from pipelines.cli.object_ids import add_object_options, given_ids

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """The options of `lrm remove`."""
    add_object_options(parser)
    parser.add_argument("--reason", default="", metavar="TEXT", help="why, for the catalog")
    parser.add_argument("--undo", action="store_true", help="let them in again")


def _run(arguments: argparse.Namespace) -> int:
    """Take objects down."""
    from pipelines.maintenance.removal import remove_objects

    root = open_root(arguments.root)
    found = remove_objects(root, given_ids(arguments), arguments.reason, arguments.undo)
    if arguments.json:
        print(json.dumps(found))
        return 0
    what, changed = next(iter(found.items()))
    already = f", {len(found['unchanged'])} were so already" if found["unchanged"] else ""
    print(f"{len(changed)} objects {what}{already}")
    if what == "removed" and changed:
        print("later snapshots are without them; `lrm compact` deletes their bytes")
    return 0


COMMAND = Command(
    example="lrm remove --root DATASET objaverse:UID --reason 'asked by its author'",
    options=_options,
    run=_run,
)
