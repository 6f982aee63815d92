"""`lrm build --filters-only`: other filters for what the catalog holds, without a build."""

import argparse

import numpy as np

from core.errors import BadInput
from core.lock import exclusive_lock
from core.storage import Storage
from dataset.root import open_root
from pipelines.building.build_config import BuildConfig
from pipelines.building.dataset_status import load_dataset_state
from pipelines.building.decide import Decider
from pipelines.building.estimates.cost import Cost
from pipelines.building.guard.changes import Changes
from pipelines.building.guard.comparison import Comparison
from pipelines.building.guard.listing_changes import ListingChanges, groups_by_reason
from pipelines.building.guard.refreshed_objects import is_in_use
from pipelines.building.guard.remembered import Memory, differences
from pipelines.building.progress import print_when_waiting
from pipelines.building.projection import columns_for_plans
from pipelines.building.records.build_record import store_filters
from pipelines.cli.build.build_settings import BuildSettings
from pipelines.cli.tables import print_notes

__all__ = ["apply_filters"]


def apply_filters(arguments: argparse.Namespace) -> Storage:
    """Store other filter settings; return the dataset."""
    settings = BuildSettings(arguments)
    if "root" not in settings.given:
        raise BadInput("--filters-only needs --root")
    root = open_root(str(settings.given["root"]))
    on_wait = print_when_waiting(arguments.wait)
    with exclusive_lock(root, "lrm build --filters-only", on_wait=on_wait):
        memory = settings.memory()
        config = settings.config(memory)
        _check_only_filters(config, memory)
        changes, listing = _find_changes(root, config, memory)
        print_notes(arguments.command, [*listing.lines(), *changes.lines()])
        store_filters(root, config, memory, changes, listing)
    return root


def _find_changes(
    root: Storage, config: BuildConfig, memory: Memory
) -> tuple[Changes, ListingChanges]:
    """Return what the filters of `config` change for the objects in the catalog."""
    now = load_dataset_state(root, columns_for_plans(), config)
    columns = now.decisions.columns
    remembered = memory.rigs[config.rig]
    before = Decider(remembered.config).decide_all(columns)
    dropped = is_in_use(before) & now.decisions.where("dropped")
    comparison = Comparison(
        config,
        remembered,
        decisions=now.decisions,
        rows=np.empty(0, dtype=np.int64),
        estimate=Cost(stages={}),
    )
    by_reason = groups_by_reason(now.objects.ids, now.decisions, dropped)
    return comparison.changes, ListingChanges(groups={}, dropped=by_reason)


def _check_only_filters(config: BuildConfig, memory: Memory) -> None:
    """Raise BadInput if settings differ that decide what is built."""
    if config.rig not in memory.rigs:
        raise BadInput(
            f"--filters-only: the dataset has no build with the rig {config.rig}, only with "
            f"{', '.join(memory.rigs)}"
        )
    changed = differences(memory.rigs[config.rig].config, config)
    others = [path for path in changed if not path.startswith("filters.")]
    if others:
        raise BadInput(
            "--filters-only changes only filters, but these settings differ, too: "
            f"{', '.join(others)}"
        )
