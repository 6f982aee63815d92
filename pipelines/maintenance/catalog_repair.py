"""`lrm repair` and the catalog's part of `lrm verify`: damage to the catalog and to `latest/`."""

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from core.lock import exclusive_lock
from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.catalog.log_files import CatalogProblem
from dataset.catalog.log_repair import plan_repair, repair_catalog
from dataset.catalog.log_state import CatalogState
from pipelines.building.object_table import latest_of

__all__ = ["CATALOG_COUNTS", "catalog_counts", "catalog_problems", "repair_dataset"]

CATALOG_COUNTS = ("commits", "files", "events", "bytes")
_LOCKS = ("shards", "snapshots")


def catalog_counts(state: CatalogState) -> dict[str, Any]:
    """Return the section `catalog` of `lrm verify --json`."""
    numbers = (len(state.commits), len(state.live), state.num_events, state.num_bytes)
    return dict(zip(CATALOG_COUNTS, numbers, strict=True)) | {"lost_before": state.losses}


def catalog_problems(root: Storage, state: CatalogState) -> list[CatalogProblem]:
    """Return what is wrong with the catalog; if nothing is lost, also with its copy, `latest/`."""
    problems = state.problems
    if any(not problem.is_derived for problem in problems):
        return problems
    return problems + latest_of(root, Catalog(root)).problems()


def repair_dataset(
    root: Storage, *, dry_run: bool, on_wait: Callable[[str], None] | None
) -> dict[str, Any]:
    """Repair the catalog and return the JSON of `lrm repair --json`.

    With `dry_run`, nothing is changed. Raises BadInput if another command holds a lock and
    `on_wait` is None, and WorkFailed if the catalog cannot be repaired.
    """
    with contextlib.ExitStack() as locks:
        for name in () if dry_run else _LOCKS:
            locks.enter_context(exclusive_lock(root, "lrm repair", name=name, on_wait=on_wait))
        repair = plan_repair(root)
        problems = repair.state.problems or latest_of(root, Catalog(root)).problems()
        if problems and not dry_run:
            repair_catalog(root, repair)
    return {
        "dry_run": dry_run,
        "damaged": [asdict(problem) | {"text": str(problem)} for problem in problems],
        "recovered": len(repair.recovered),
        "lost": [asdict(loss) | {"text": str(loss)} for loss in repair.lost],
        "lost_before": repair.state.losses,
    }
