"""Options that select objects: asset ids, or a file of them."""

import argparse
import sys

from core.errors import BadInput
from core.options import Parser, add_root_options

__all__ = ["add_object_options", "given_ids"]


def add_object_options(parser: Parser) -> None:
    """Add `--root`, `--json`, asset ids and `--from FILE`."""
    add_root_options(parser)
    parser.add_argument(
        "objects", nargs="*", metavar="OBJECT", help="Asset ids, such as objaverse:UID."
    )
    parser.add_argument(
        "--from",
        dest="file",
        metavar="FILE",
        help="File of asset ids, one per line; - reads standard input.",
    )


def given_ids(arguments: argparse.Namespace) -> list[str]:
    """Return the ids that were given. Raises BadInput if the file cannot be read."""
    from pipelines.maintenance.removal import read_ids

    if arguments.file is None:
        return read_ids(arguments.objects, [])
    if arguments.file == "-":
        return read_ids(arguments.objects, sys.stdin)
    try:
        with open(arguments.file, encoding="utf-8") as file:
            return read_ids(arguments.objects, file)
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or error
        raise BadInput(f"--from {arguments.file}: cannot read the list: {problem}") from None
