"""The state of a dataset, as `lrm status` and the end of `lrm build` print it."""

import json
from typing import Any

from core.lock import lock_holder
from core.storage import Storage
from dataset.build_records import read_records
from dataset.catalog.event_log import Catalog
from dataset.root import read_build

__all__ = ["print_status", "print_summary", "status_summary"]

_RECORDS = 16
"""The newest records among which that of the last build is: other commands write some, too."""


def status_summary(root: Storage) -> dict[str, Any]:
    """Return the JSON of `lrm status --json`."""
    from pipelines.building.dataset_status import load_dataset_state, stored_config, summarise
    from pipelines.building.estimates.estimate import remaining_work
    from pipelines.building.estimates.spending import compare
    from pipelines.building.estimates.throughput import recent_throughput
    from pipelines.building.projection import columns_for_counts

    # Read before the catalog: a build that ends meanwhile counts as running, with all its objects.
    holder, build, catalog = lock_holder(root), read_build(root), Catalog(root)
    config = stored_config(root, build)
    state = load_dataset_state(root, columns_for_counts(), config)
    summary = summarise(state)
    work = remaining_work(state.decisions, state.objects.columns, state.config)
    writer = None if holder is None else holder.to_dict()
    building = writer if writer and writer["command"] == "lrm build" else None
    last_build, error = ("running", None) if building else _end_of_last_build(root, build)
    return {
        **summary,
        **recent_throughput(catalog, summary["pending"], work),
        "cost": compare(build, catalog, state.config),
        "building": building,
        "writer": writer,
        "last_build": last_build,
        "last_error": error,
    }


def print_status(root: Storage, as_json: bool) -> int:
    """Print the state of a dataset, as tables or as JSON; return the exit code 0."""
    print_summary(status_summary(root), as_json)
    return 0


def print_summary(summary: dict[str, Any], as_json: bool) -> None:
    """Print what `status_summary` returned."""
    from pipelines.cli.tables import show_status

    if as_json:
        print(json.dumps(summary))
    else:
        show_status(summary)


def _end_of_last_build(root: Storage, build: dict[str, Any]) -> tuple[str, str | None]:
    """Return how the last build ended, and its error.

    With an error, the end is the outcome in its record: `incomplete`, `failed` or `refused`.
    Without one it is `ended`, or `stopped` if the build has not written its end.
    """
    records = read_records(root, _RECORDS)
    builds = [record for record in records if record["command"] == "lrm build"]
    last = builds[-1] if builds else {}
    if last.get("error") and last.get("outcome") != "stopped":
        return last["outcome"], last["error"]
    return ("ended" if build.get("ended") else "stopped"), None
