"""The creation of a snapshot from the catalog: the samples that are kept now, with their bytes."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import WorkFailed
from core.lock import exclusive
from core.storage import Storage
from dataset.format.shards import SampleEntry, index_path, read_index
from dataset.snapshots.snapshot import Sample, split_of, write_snapshot
from pipelines.building.dataset_status import Standing, load_standing
from pipelines.building.progress import waiter
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.pack import PACK, SAMPLE, SHARD

__all__ = ["freeze", "kept_samples"]


def freeze(
    root: Storage, where: str | None, validation_share: float, protect_days: float
) -> dict[str, Any]:
    """Create a snapshot of all kept samples that satisfy `where`; return its manifest.

    `validation_share` is the share of objects in the validation split; `lrm compact` keeps the
    snapshot's bytes for `protect_days`.
    """
    # The lock excludes a compaction, which would not know the new snapshot and could move samples.
    with exclusive(root, "lrm snapshot", what="snapshots", on_wait=waiter(wait=True)):
        samples = kept_samples(root, load_standing(root), validation_share)
        return write_snapshot(root, samples, where, protect_days)


def kept_samples(root: Storage, standing: Standing, validation_share: float) -> Iterator[Sample]:
    """Yield the samples of all kept objects, shard by shard.

    Raises WorkFailed if a shard's index is damaged or lacks a sample.
    """
    rows = np.flatnonzero(standing.decisions.where("kept"))
    if not len(rows):
        return
    shards = standing.objects.table[SHARD.key].cast(pa.string()).take(pa.array(rows))
    order = rows[pc.sort_indices(shards).to_numpy()]
    # One index at a time: all of them together would take gigabytes of memory.
    for shard, states in groupby(standing.objects.states(order), _shard_of):
        index = _index(root, shard)
        for state in states:
            yield _sample(state, shard, index, standing, validation_share)


def _shard_of(state: ObjectState) -> str:
    return state.require(SHARD)


def _index(root: Storage, shard: str) -> dict[str, SampleEntry]:
    try:
        entries, _ = read_index(root, shard)
    except (OSError, ValueError) as error:
        raise WorkFailed(
            f"{index_path(shard)}: cannot read the index of this shard: {error}"
        ) from error
    return {entry.key: entry for entry in entries}


def _sample(
    state: ObjectState,
    shard: str,
    index: dict[str, SampleEntry],
    standing: Standing,
    validation_share: float,
) -> Sample:
    record = state.record
    try:
        entry = index[state.require(SAMPLE)]
    except KeyError:
        raise WorkFailed(
            f"{record.asset_id}: the index of {shard} lacks its sample: run lrm verify"
        ) from None
    return Sample(
        asset_id=record.asset_id,
        split=split_of(record.asset_id, validation_share),
        rig=standing.config.rig,
        sha256=state.require(PACK.events.content),
        render_key=standing.decider.identities.key(PACK, state),
        shard=shard,
        entry=entry,
        name=record.name,
        caption=record.caption,
        licence=record.licence,
        author=record.author,
        tags=record.tags,
        categories=record.categories,
        geometry=standing.geometry_path(state),
    )
