"""Removals of objects, and retries of failures: events that an operator writes."""

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from core.errors import BadInput
from core.storage import Storage
from dataset.catalog.event_columns import CLEARED, LIST, REMOVE
from dataset.catalog.event_log import Catalog, Event
from dataset.object_record import split_asset_id
from pipelines.building.dataset_status import load_dataset_state
from pipelines.building.object_table import latest_of
from pipelines.building.stages.registry import STAGES

__all__ = ["read_ids", "remove_objects", "retry_objects"]


def read_ids(words: Sequence[str], lines: Iterable[str]) -> list[str]:
    """Return the asset ids from the command line and from a file, one per line, without repeats.

    `#` starts a comment in the file, but is part of an id of a folder. Raises BadInput for an
    invalid asset id, or without any.
    """
    given = (_without_comment(line) for line in lines)
    ids = list(dict.fromkeys([*words, *(line for line in given if line)]))
    for asset_id in ids:
        split_asset_id(asset_id)
    if not ids:
        raise BadInput("no objects given: name asset ids, or give --from FILE")
    return ids


def _without_comment(line: str) -> str:
    text = line.removeprefix("\ufeff").strip()
    return text if text.startswith("folder:") else text.partition("#")[0].strip()


def remove_objects(root: Storage, ids: Sequence[str], reason: str, undo: bool) -> dict[str, Any]:
    """Add a tombstone to objects, or (`undo`) clear it, and return the JSON of `lrm remove --json`.

    Raises BadInput, and writes nothing, if an object was never in the dataset.
    """
    catalog = Catalog(root)
    listed, removals = (LIST.stage, ""), (REMOVE.stage, "")
    tables = latest_of(root, catalog).tables([listed, removals], ["status"])
    _require_known(root, ids, tables[listed]["asset_id"].to_pylist())
    rows = tables[removals].to_pylist()
    removed = {row["asset_id"] for row in rows if row["status"] == "ok"}
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
    """Clear the failures of these objects, so that the next build retries them.

    `ids` None means all objects; `kind` limits the failures to one kind. Returns the JSON of
    `lrm retry --json`. Raises BadInput, and writes nothing, if an object is not in the dataset.
    """
    dataset_state = load_dataset_state(root)
    if ids is not None:
        _require_known(root, ids, dataset_state.objects.ids.to_pylist())
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


def _require_known(root: Storage, ids: Sequence[str], known: Iterable[str]) -> None:
    known = set(known)
    unknown = [asset_id for asset_id in ids if asset_id not in known]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise BadInput(f"{unknown[0]}{more}: not in the dataset {root.uri}; nothing was written")
