"""Garbage that a changed source left behind, which a compaction deletes only if it is told to.

A source or captions that collapse make garbage of good samples, perhaps builds ago. The catalog
still has the earlier listings of their objects.
"""

import json
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.storage import Storage
from dataset.catalog.event_columns import LIST
from dataset.catalog.event_log import Catalog
from dataset.maintenance.compact import StoredSample
from pipelines.building.dataset_status import DatasetState, load_dataset_state
from pipelines.building.guard.groups import group_of
from pipelines.building.guard.kept_losses import VANISHED, Losses, list_reasons
from pipelines.building.guard.listing_changes import groups_by_reason
from pipelines.building.guard.refreshed_objects import is_in_use
from pipelines.building.object_table import latest_of, widen
from pipelines.building.projection import listed_row, projection

__all__ = ["find_garbage_losses"]

_REMEDY = "restore the source or the captions and run `lrm build`"
_BATCH = 4096
"""Listings that are converted to Python values at once."""


def find_garbage_losses(root: Storage, samples: Collection[StoredSample]) -> Losses:
    """Return the objects whose samples are garbage, but not because of settings or a removal.

    With one of its earlier listings, the filters of the last build would keep such an object.
    """
    kept = {sample.asset_id for sample in samples if sample.live}
    garbage = {sample.asset_id for sample in samples if not sample.live and not sample.removed}
    lost, causes = pa.array([], pa.string()), {}
    if garbage:
        dataset_state = load_dataset_state(root)
        ids, decisions = dataset_state.objects.ids, dataset_state.decisions
        candidates = pa.array(sorted(garbage), pa.string())
        gone = candidates.filter(pc.invert(pc.is_in(candidates, value_set=ids.combine_chunks())))
        by_listing = np.isin(decisions.reason, list_reasons(decisions))
        by_listing &= pc.is_in(ids, value_set=candidates).to_numpy()
        dropped = ids.filter(pa.array(by_listing)).combine_chunks()
        lost = _kept_by_earlier_listings(root, dataset_state, pa.concat_arrays([gone, dropped]))
        gone = gone.filter(pc.is_in(gone, value_set=lost))
        causes = {VANISHED: group_of(gone)} if len(gone) else {}
        by_listing &= pc.is_in(ids, value_set=lost).to_numpy()
        causes |= groups_by_reason(ids, decisions, by_listing)
    return Losses(kept=len(kept.union(lost.to_pylist())), causes=causes, remedy=_REMEDY)


def _kept_by_earlier_listings(
    root: Storage, dataset_state: DatasetState, asset_ids: pa.Array
) -> pa.Array:
    """Return those objects that would be kept or pending with any listing that they ever had."""
    catalog = Catalog(root)
    rows = _listings(catalog.distinct_results(asset_ids, LIST.stage))
    decider = dataset_state.decider
    stage_rigs = set(decider.stage_rigs.values()) - {decider.stage_rigs[LIST.stage]}
    tables = latest_of(root, catalog).tables(stage_rigs)
    listings = widen(rows, tables, decider)
    would_be = is_in_use(decider.decide_all(listings.columns))
    return pc.unique(listings.ids.filter(pa.array(would_be)).combine_chunks())


def _listings(results: pa.Table) -> pa.Table:
    """Return results of the stage `list` in the form of the catalog's table of that stage."""
    schema = projection().schema(LIST.stage)
    tables = [schema.empty_table()]
    for batch in results.to_batches(max_chunksize=_BATCH):
        rows = [
            {"asset_id": row["asset_id"], "content": row["content"], "status": "ok"}
            | listed_row("ok", json.loads(row["data"]))
            for row in batch.to_pylist()
        ]
        tables.append(pa.Table.from_pylist(rows, schema=schema))
    return pa.concat_tables(tables)
