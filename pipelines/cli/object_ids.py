"""Options that select objects: asset ids, or a file of them."""

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

from core.errors import BadInput
from core.options import Parser, add_root_options
from core.paths.regular_file import open_regular
from core.storage import Storage

__all__ = ["add_object_options", "given_ids", "names_objects"]


def add_object_options(parser: Parser) -> None:
    """Add `--root`, `--json`, asset ids and `--from FILE`."""
    add_root_options(parser)
    parser.add_argument(
        "objects",
        nargs="*",
        metavar="OBJECT",
        help="Asset ids, such as objaverse:UID; UID alone is enough.",
    )
    parser.add_argument(
        "--from",
        dest="file",
        metavar="FILE",
        help="File of asset ids, one per line, as `lrm list` prints them; - reads standard input.",
    )


def names_objects(arguments: argparse.Namespace) -> bool:
    """Return whether ids or a file of ids were given."""
    return bool(arguments.objects) or arguments.file is not None


def given_ids(root: Storage, arguments: argparse.Namespace, *, listed: bool) -> list[str]:
    """Return the ids of the objects that were named, in their order, without repeats.

    A file without ids is a list of none, such as the output of `lrm list` without a match. With
    `listed`, the source must still list them. Raises BadInput if neither ids nor a file were given,
    if the file cannot be read, and if the dataset lacks one of the objects.
    """
    from pipelines.selection.object_names import names_in_file, names_of_words, resolve_names

    if not names_objects(arguments):
        raise BadInput("no objects given: name asset ids, or give --from FILE")
    names = names_of_words(arguments.objects)
    if arguments.file is not None:
        where = f"--from {arguments.file}"
        try:
            with _opened(arguments.file) as file:
                names += names_in_file(file, where)
        except (OSError, UnicodeDecodeError) as error:
            problem = getattr(error, "strerror", None) or error
            raise BadInput(f"{where}: cannot read the list: {problem}") from None
    return resolve_names(root, names, listed=listed)


def _opened(file: str) -> AbstractContextManager[TextIO]:
    return nullcontext(sys.stdin) if file == "-" else open_regular(file, encoding="utf-8")
