"""The creation of a snapshot from the catalog: the samples that are kept now, with their bytes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import BadInput, WorkFailed
from core.lock import LockCheck, exclusive_lock
from core.storage import Storage
from dataset.format.shards import SampleEntry, index_path, read_index
from dataset.snapshots.references import check_name
from dataset.snapshots.snapshot import Sample, split_of, write_snapshot
from pipelines.building.dataset_status import DatasetState, load_dataset_state
from pipelines.building.guard.remembered import remembered_settings
from pipelines.building.object_table import latest_of
from pipelines.building.progress import print_when_waiting
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.pack import PACK, SAMPLE, SHARD

__all__ = ["create_snapshot", "kept_samples", "snapshot_lock", "state_of_rig"]


def create_snapshot(
    root: Storage,
    where: str | None,
    validation_share: float,
    protect_days: float,
    rig: str | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Create a snapshot of all kept samples that satisfy `where`; return its manifest.

    `validation_share` is the share of objects in the validation split; `lrm compact` keeps the
    snapshot's bytes for `protect_days`. The samples are those of a rig, by default of the last
    build's. Raises BadInput if the rig has no samples, or if another snapshot has the name.
    """
    if name is not None:
        check_name(name)
    with snapshot_lock(root):
        samples = kept_samples(root, state_of_rig(root, rig), validation_share)
        return write_snapshot(root, samples, where, protect_days, name)


def snapshot_lock(root: Storage) -> AbstractContextManager[LockCheck]:
    """Return the lock for creating and deleting snapshots; it waits for its holder.

    It excludes a compaction, which would not know a new snapshot and could move its samples.
    """
    return exclusive_lock(
        root, "lrm snapshot", name="snapshots", on_wait=print_when_waiting(wait=True)
    )


def state_of_rig(root: Storage, rig: str | None, columns: list[str] | None = None) -> DatasetState:
    """Return the dataset state under the settings of a rig, by default of the last build's.

    `columns` limits the columns as in `load_dataset_state`. Raises BadInput if the rig has no
    samples.
    """
    if rig is None:
        return load_dataset_state(root, columns)
    known = [name for stage, name in latest_of(root).stage_rigs() if stage == PACK.name]
    if rig not in known:
        there_are = f"there are samples of: {', '.join(known)}" if known else "there is no sample"
        raise BadInput(
            f"--rig {rig}: {root.uri} has no sample of this rig; {there_are}; build them with "
            f"`lrm build --rig {rig}`"
        )
    return load_dataset_state(root, columns, remembered_settings(root, rig))


def kept_samples(
    root: Storage, dataset_state: DatasetState, validation_share: float
) -> Iterator[Sample]:
    """Yield the samples of all kept objects, shard by shard.

    Raises WorkFailed if a shard's index is damaged or lacks a sample.
    """
    rows = np.flatnonzero(dataset_state.decisions.where("kept"))
    if not len(rows):
        return
    shards = dataset_state.objects.table[SHARD.key].cast(pa.string()).take(pa.array(rows))
    order = rows[pc.sort_indices(shards).to_numpy()]
    # One index at a time: all of them together would take gigabytes of memory.
    for shard, states in groupby(dataset_state.objects.states(order), _shard_of):
        index = _index(root, shard)
        for state in states:
            yield _sample(state, shard, index, dataset_state, validation_share)


def _shard_of(state: ObjectState) -> str:
    return state.require(SHARD)


def _index(root: Storage, shard: str) -> dict[str, SampleEntry]:
    try:
        entries, _ = read_index(root, shard)
    except (OSError, ValueError) as error:
        raise WorkFailed(
            f"{index_path(shard)}: cannot read the index of this shard: {error}; "
            "run `lrm verify`, then `lrm build`"
        ) from error
    return {entry.key: entry for entry in entries}


def _sample(
    state: ObjectState,
    shard: str,
    index: dict[str, SampleEntry],
    dataset_state: DatasetState,
    validation_share: float,
) -> Sample:
    record = state.record
    try:
        entry = index[state.require(SAMPLE)]
    except KeyError:
        raise WorkFailed(
            f"{record.asset_id}: the index of {shard} lacks its sample; run `lrm verify`, "
            "then `lrm build`"
        ) from None
    return Sample(
        asset_id=record.asset_id,
        split=split_of(record.asset_id, validation_share),
        rig=dataset_state.config.rig,
        sha256=state.require(PACK.events.content),
        render_key=dataset_state.decider.identities.key(PACK, state),
        shard=shard,
        entry=entry,
        name=record.name,
        caption=record.caption,
        licence=record.licence,
        author=record.author,
        tags=record.tags,
        categories=record.categories,
        geometry=dataset_state.geometry_path(state),
    )
