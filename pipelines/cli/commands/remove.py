"""`lrm remove`: take objects down, or undo it."""

import argparse
import json

from core.options import Parser
from dataset.root import open_root
from pipelines.cli.command import Command
from pipelines.cli.object_ids import add_object_options, given_ids
from pipelines.cli.tables import counted

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of `lrm remove`."""
    add_object_options(parser)
    parser.add_argument(
        "--reason", default="", metavar="TEXT", help="Reason to store in the catalog."
    )
    parser.add_argument(
        "--undo", action="store_true", help="Undo an earlier removal of these objects."
    )


def _run(arguments: argparse.Namespace) -> int:
    """Write the removals to the catalog and print how many objects changed."""
    from pipelines.maintenance.removal import remove_objects

    root = open_root(arguments.root)
    ids = given_ids(root, arguments, listed=False)
    result = remove_objects(root, ids, arguments.reason, arguments.undo)
    if arguments.json:
        print(json.dumps(result))
        return 0
    action, changed = next(iter(result.items()))
    unchanged = len(result["unchanged"])
    already = f"; {counted(unchanged, 'object')} needed no change" if unchanged else ""
    print(f"{counted(len(changed), 'object')} {action}{already}")
    if action == "removed" and changed:
        print("not in later snapshots; `lrm compact` deletes the data")
    return 0


COMMAND = Command(
    example="lrm remove --root DATASET objaverse:UID --reason 'asked by its author'",
    options=_options,
    run=_run,
)
