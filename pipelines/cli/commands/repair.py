"""`lrm repair`: repair the catalog, and say what is lost."""

import argparse
import json

from core.options import Parser, add_root_options, add_wait_option
from core.safe_text import printable
from dataset.root import open_root
from pipelines.building.progress import print_when_waiting
from pipelines.cli.command import Command
from pipelines.cli.tables import counted

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of `lrm repair`."""
    add_root_options(parser)
    add_wait_option(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="Print what would be done, and change nothing."
    )


def _run(arguments: argparse.Namespace) -> int:
    """Repair the catalog and print what was damaged, recovered and lost."""
    from pipelines.maintenance.catalog_repair import repair_dataset

    result = repair_dataset(
        open_root(arguments.root),
        dry_run=arguments.dry_run,
        on_wait=print_when_waiting(arguments.wait),
    )
    if arguments.json:
        print(json.dumps(result))
        return 0
    for item in [*result["damaged"], *result["lost"]]:
        print(printable(item["text"]))
    if not result["damaged"]:
        print("the catalog is intact: nothing to do")
        return 0
    would = "would be " if arguments.dry_run else ""
    problems = counted(len(result["damaged"]), "problem")
    recovered = counted(result["recovered"], "file")
    lost = f"events of {counted(len(result['lost']), 'file')}" if result["lost"] else "nothing"
    print(f"{problems} {would}repaired; {recovered} of events {would}recovered; {lost} lost")
    if not arguments.dry_run:
        print("damaged files are kept in catalog/_damaged/")
    return 0


COMMAND = Command(
    example="lrm repair --root DATASET --dry-run",
    options=_options,
    run=_run,
)
