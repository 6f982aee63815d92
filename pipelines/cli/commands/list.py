"""`lrm list`: the objects that satisfy conditions, with their columns of the catalog."""

import argparse
from collections.abc import Sequence

from core.choices import choose
from core.errors import BadInput
from core.options import Parser, add_root_options
from dataset.root import open_root
from pipelines.cli.command import Command

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of `lrm list`."""
    add_root_options(parser)
    add = parser.add_argument
    add("--state", metavar="STATE", help="Only kept, dropped, failed or pending objects.")
    add("--reason", metavar="REASON", help="Only objects that were dropped for this reason.")
    add("--kind", metavar="KIND", help="Only objects that failed with this failure kind.")
    add(
        "--where",
        metavar="EXPR",
        help="Only objects that this SQL condition on their columns selects, such as "
        "\"measure.thickness < 0.01 and licence = 'by'\".",
    )
    add(
        "--columns",
        metavar="NAMES",
        help="Columns to print, separated by commas, such as asset_id,reason,measured,caption; "
        "docs/reference/columns.md describes them.",
    )
    add(
        "--format",
        metavar="FORMAT",
        help="Format of the output: ids (one per line, for --from -), table, csv, json or parquet "
        "[default: ids; table with --columns].",
    )


def _run(arguments: argparse.Namespace) -> int:
    """Write the objects that satisfy the conditions to standard output."""
    from pipelines.selection.row_formats import FORMATS
    from pipelines.selection.select_objects import USUAL_COLUMNS, Selection, select_objects

    form = _format_of(arguments)
    write = choose("--format", form, FORMATS)
    columns: Sequence[str] = ("asset_id",) if form == "ids" else USUAL_COLUMNS
    if arguments.columns is not None:
        columns = [name.strip() for name in arguments.columns.split(",")]
        if form == "ids":
            raise BadInput("--format ids prints no columns: leave out --columns")
    selection = Selection(
        state=arguments.state,
        reason=arguments.reason,
        kind=arguments.kind,
        where=arguments.where,
    )
    write(*select_objects(open_root(arguments.root), selection, columns))
    return 0


def _format_of(arguments: argparse.Namespace) -> str:
    if arguments.json and arguments.format not in (None, "json"):
        raise BadInput(f"--json is --format json: leave out --format {arguments.format}")
    if arguments.json:
        return "json"
    return arguments.format or ("ids" if arguments.columns is None else "table")


COMMAND = Command(
    example="lrm list --root DATASET --state dropped --columns asset_id,reason,measured",
    options=_options,
    run=_run,
)
