"""`lrm retry`: forget failures, so that the next build tries again."""

import argparse
import json

from core.errors import BadInput
from core.options import Parser
from dataset.root import open_root
from pipelines.cli.command import Command
from pipelines.cli.object_ids import add_object_options, given_ids

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """The options of `lrm retry`."""
    add_object_options(parser)
    parser.add_argument("--kind", metavar="KIND", help="all that failed in this way")


def _run(arguments: argparse.Namespace) -> int:
    """Forget failures."""
    from pipelines.maintenance.removal import retry_objects

    root = open_root(arguments.root)
    named = arguments.objects or arguments.file
    if not named and arguments.kind is None:
        raise BadInput("say which failures to forget: asset ids, --from FILE or --kind KIND")
    found = retry_objects(root, given_ids(arguments) if named else None, arguments.kind)
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


COMMAND = Command(
    example="lrm retry --root DATASET --kind timeout",
    options=_options,
    run=_run,
)
