"""Removals of objects, and retries of failures: events that an operator writes."""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from core.storage import Storage
from dataset.catalog.event_columns import CLEARED, REMOVE
from dataset.catalog.event_log import Catalog, Event
from pipelines.building.dataset_status import count_failed, load_dataset_state
from pipelines.building.object_table import latest_of
from pipelines.building.stages.registry import STAGES
from pipelines.selection.select_objects import unknown_kind

__all__ = ["remove_objects", "retry_objects"]


def remove_objects(root: Storage, ids: Sequence[str], reason: str, undo: bool) -> dict[str, Any]:
    """Add a tombstone to objects of the dataset, or (`undo`) clear it.

    Returns the JSON of `lrm remove --json`.
    """
    catalog, removals = Catalog(root), (REMOVE.stage, "")
    table = latest_of(root, catalog).tables([removals], ["status"])[removals]
    removed = {row["asset_id"] for row in table.to_pylist() if row["status"] == "ok"}
    changed = [asset_id for asset_id in ids if (asset_id in removed) == undo]
    status = CLEARED if undo else "ok"
    events = [
        Event(asset_id=asset_id, stage=REMOVE.stage, status=status, message=reason)
        for asset_id in changed
    ]
    catalog.commit(events, uuid.uuid4().hex, 1)
    key = "restored" if undo else "removed"
    return {key: changed, "unchanged": _without(ids, changed)}


def retry_objects(root: Storage, ids: Sequence[str] | None, kind: str | None) -> dict[str, Any]:
    """Clear the failures of these objects of the dataset, so that the next build retries them.

    `ids` None means all objects; `kind` limits the failures to one kind. Returns the JSON of
    `lrm retry --json`. Raises BadInput, and writes nothing, if there is no such kind.
    """
    dataset_state = load_dataset_state(root)
    error = None if kind is None else unknown_kind(kind, count_failed(dataset_state))
    if error is not None:
        raise error
    wanted = None if ids is None else set(ids)
    events, kinds = [], Counter[str]()
    for row in np.flatnonzero(dataset_state.decisions.where("failed")).tolist():
        failure = dataset_state.decisions.at(row).failure
        state = dataset_state.objects.state(row)
        if failure is None or (wanted is not None and state.asset_id not in wanted):
            continue
        kinds[failure.kind] += 1
        # A failed listing stays: a cleared one would not be listed, and every build reads it again.
        stage = STAGES.find(failure.stage)
        if stage is not None and kind in (None, failure.kind):
            cleared = {"status": CLEARED, "kind": failure.kind}
            events.append(dataset_state.decider.identities.event(stage, state, **cleared))
    Catalog(root).commit(events, uuid.uuid4().hex, 1)
    cleared_ids = [event.asset_id for event in events]
    return {
        "cleared": cleared_ids,
        "unchanged": _without(ids or (), cleared_ids),
        "kinds": dict(kinds.most_common()),
    }


def _without(ids: Iterable[str], others: Iterable[str]) -> list[str]:
    others = set(others)
    return [asset_id for asset_id in ids if asset_id not in others]
