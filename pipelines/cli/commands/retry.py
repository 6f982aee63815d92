"""`lrm retry`: clear failures, so that the next build tries again."""

import argparse
import json

from core.errors import BadInput
from core.options import Parser
from dataset.root import open_root
from pipelines.cli.command import Command
from pipelines.cli.object_ids import add_object_options, given_ids, names_objects
from pipelines.cli.tables import counted

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of `lrm retry`."""
    add_object_options(parser)
    parser.add_argument(
        "--kind", metavar="KIND", help="Clear the failures of this kind, such as timeout."
    )


def _run(arguments: argparse.Namespace) -> int:
    """Clear failures in the catalog and print how many."""
    from pipelines.maintenance.removal import retry_objects

    root = open_root(arguments.root)
    named = names_objects(arguments)
    if not named and arguments.kind is None:
        raise BadInput("give the failures to clear: asset ids, --from FILE or --kind KIND")
    ids = given_ids(root, arguments, listed=True) if named else None
    result = retry_objects(root, ids, arguments.kind)
    if arguments.json:
        print(json.dumps(result))
        return 0
    again = "; the next build tries again" if result["cleared"] else ""
    print(f"{counted(len(result['cleared']), 'failure')} cleared{again}")
    if result["unchanged"]:
        print(f"{counted(len(result['unchanged']), 'object')} had no such failure")
    if not result["cleared"] and result["kinds"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in result["kinds"].items())
        print(f"failures in this dataset: {kinds}")
    return 0


COMMAND = Command(
    example="lrm retry --root DATASET --kind timeout",
    options=_options,
    run=_run,
)
