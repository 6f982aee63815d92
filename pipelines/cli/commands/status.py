"""`lrm status`: how many objects are listed, kept, dropped and failed."""

import argparse
import json

from core.options import add_root_options
from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.root import open_root, read_build
from pipelines.cli.command import Command

__all__ = ["COMMAND", "print_status"]


def _run(arguments: argparse.Namespace) -> int:
    """Print the state of a dataset."""
    return print_status(open_root(arguments.root), arguments.json)


def print_status(root: Storage, as_json: bool) -> int:
    """Print the state of a dataset, as tables or as JSON; return the exit code 0."""
    from pipelines.building.dataset_status import stored_config, summarise
    from pipelines.building.estimates.spending import compare
    from pipelines.building.estimates.throughput import recent_throughput
    from pipelines.cli.tables import show_status

    summary = summarise(root)
    catalog = Catalog(root)
    summary |= recent_throughput(catalog, summary["pending"])
    config = stored_config(root)
    summary["cost"] = compare(read_build(root), catalog, config)
    if as_json:
        print(json.dumps(summary))
    else:
        show_status(summary)
    return 0


COMMAND = Command(
    example="lrm status --root DATASET",
    options=add_root_options,
    run=_run,
)
