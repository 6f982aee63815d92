"""Garbage that a changed source left behind, which a compaction deletes only if it is told to.

A source or captions that collapse make garbage of good samples, perhaps builds ago. The catalog
still has the earlier listings of their objects.
"""

import json
from collections import defaultdict
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.storage import Storage
from dataset.catalog.event_columns import LIST
from dataset.catalog.event_log import Catalog
from dataset.maintenance.compaction_plan import StoredSample
from pipelines.building.dataset_status import DatasetState, load_dataset_state, stored_config
from pipelines.building.decide import Decisions
from pipelines.building.guard.groups import group_of
from pipelines.building.guard.kept_losses import VANISHED, Losses, RigLosses, list_reasons
from pipelines.building.guard.listing_changes import groups_by_reason
from pipelines.building.guard.refreshed_objects import is_in_use
from pipelines.building.guard.remembered import read_memory
from pipelines.building.guard.rig_samples import decide_listing, filters_of
from pipelines.building.object_table import Objects, latest_of, widen
from pipelines.building.projection import listed_row, projection

__all__ = ["find_garbage_losses"]

_REMEDY = "restore the source or the captions and run `lrm build`"
_BATCH = 4096
"""Listings that are converted to Python values at once."""


def find_garbage_losses(root: Storage, samples: Collection[StoredSample]) -> Losses:
    """Return the objects whose samples are garbage, but not because of settings or a removal.

    With one of its earlier listings, the filters of a sample's rig would keep such an object.
    """
    last_rig = stored_config(root).rig
    kept: dict[str, set[str]] = defaultdict(set, {last_rig: set()})
    garbage: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if sample.live:
            kept[sample.rig].add(sample.asset_id)
        elif not sample.removed:
            garbage[sample.rig].add(sample.asset_id)
    losses = {rig: RigLosses(rig=rig, kept=len(ids), causes={}) for rig, ids in kept.items()}
    if garbage:
        search = _GarbageSearch(root, set().union(*garbage.values()))
        for rig, ids in garbage.items():
            losses[rig] = search.losses(rig, pa.array(sorted(ids), pa.string()), kept[rig])
    return Losses(rigs=list(losses.values()), remedy=_REMEDY)


class _GarbageSearch:
    """Finds the garbage of each rig that the rig would keep with an earlier listing."""

    def __init__(self, root: Storage, garbage: Collection[str]) -> None:
        self._config, self._memory = stored_config(root), read_memory(root)
        dataset_state = load_dataset_state(root)
        self._ids, self._decisions = dataset_state.objects.ids, dataset_state.decisions
        self._by_listing = np.isin(self._decisions.reason, list_reasons(self._decisions))
        candidates = pa.array(sorted(garbage), pa.string())
        dropped = pc.is_in(candidates, value_set=self._dropped_by_listing())
        asset_ids = candidates.filter(pc.or_(self._is_gone(candidates), dropped))
        self._listings, self._by_last_rig = _earlier_listings(root, dataset_state, asset_ids)

    def losses(self, rig: str, garbage: pa.Array, kept: Collection[str]) -> RigLosses:
        """Return the losses of one rig, which has these garbage and kept objects."""
        decisions = self._by_last_rig
        if rig != self._config.rig:
            filters = filters_of(rig, self._config, self._memory)
            decisions = decide_listing(self._listings, self._config, filters)
        would_be = self._listings.ids.filter(pa.array(is_in_use(decisions))).combine_chunks()
        lost = garbage.filter(pc.is_in(garbage, value_set=would_be))
        gone = lost.filter(self._is_gone(lost))
        causes = {VANISHED: group_of(gone)} if len(gone) else {}
        dropped = self._by_listing & pc.is_in(self._ids, value_set=lost).to_numpy()
        causes |= groups_by_reason(self._ids, self._decisions, dropped)
        return RigLosses(rig=rig, kept=len({*kept, *lost.to_pylist()}), causes=causes)

    def _is_gone(self, asset_ids: pa.Array) -> pa.Array:
        """Return a mask of the objects that are not listed any more."""
        return pc.invert(pc.is_in(asset_ids, value_set=self._ids.combine_chunks()))

    def _dropped_by_listing(self) -> pa.Array:
        """Return the ids of the objects that a filter on the listing drops for the last rig."""
        return self._ids.filter(pa.array(self._by_listing)).combine_chunks()


def _earlier_listings(
    root: Storage, dataset_state: DatasetState, asset_ids: pa.Array
) -> tuple[Objects, Decisions]:
    """Return every listing that these objects ever had, and the last rig's decision on each."""
    catalog = Catalog(root)
    rows = _listings(catalog.distinct_results(asset_ids, LIST.stage))
    decider = dataset_state.decider
    stage_rigs = set(decider.stage_rigs.values()) - {decider.stage_rigs[LIST.stage]}
    tables = latest_of(root, catalog).tables(stage_rigs)
    listings = widen(rows, tables, decider)
    return listings, decider.decide_all(listings.columns)


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
