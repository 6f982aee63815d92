"""Takedowns, and failures that are to be forgotten: events that a person writes."""

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
from pipelines.building.dataset_status import load_standing
from pipelines.building.object_table import latest_of

__all__ = ["read_ids", "remove_objects", "retry_objects"]


def read_ids(words: Sequence[str], lines: Iterable[str]) -> list[str]:
    """Asset ids from the command line and from a file, one per line; `#` starts a comment.

    Raises BadInput if one has another form, or if there is none.
    """
    stripped = (line.partition("#")[0].strip() for line in lines)
    ids = list(dict.fromkeys([*words, *(line for line in stripped if line)]))
    for asset_id in ids:
        split_asset_id(asset_id)
    if not ids:
        raise BadInput("no object is named: give asset ids, or --from FILE")
    return ids


def remove_objects(root: Storage, ids: Sequence[str], reason: str, undo: bool) -> dict[str, Any]:
    """Take objects down, or (`undo`) let them in again; the JSON of `lrm remove --json`.

    Raises BadInput, and writes nothing, if one was never in the dataset.
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
    what = "restored" if undo else "removed"
    return {what: changed, "unchanged": _without(ids, changed)}


def retry_objects(root: Storage, ids: Sequence[str] | None, kind: str | None) -> dict[str, Any]:
    """Forget the failures of these objects, or of all that failed in a way (`kind`).

    The JSON of `lrm retry --json`. Raises BadInput, and writes nothing, if one is unknown.
    """
    standing = load_standing(root)
    if ids is not None:
        _require_known(root, ids, standing.objects.ids.to_pylist())
    wanted = None if ids is None else set(ids)
    events, kinds = [], Counter[str]()
    for row in np.flatnonzero(standing.decisions.where("failed")).tolist():
        failure = standing.decisions.at(row).failure
        state = standing.objects.state(row)
        if failure is None or (wanted is not None and state.asset_id not in wanted):
            continue
        kinds[failure.kind] += 1
        if kind is None or failure.kind == kind:
            cleared = {"status": CLEARED, "kind": failure.kind}
            events.append(standing.decider.identities.event(failure.stage, state, **cleared))
    Catalog(root).commit(events, uuid.uuid4().hex, 1)
    done = [event.asset_id for event in events]
    return {
        "cleared": done,
        "unchanged": _without(ids or (), done),
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
        raise BadInput(f"{unknown[0]}{more}: not in the dataset {root.uri}; nothing is written")
