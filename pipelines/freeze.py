"""From the catalog to a snapshot: which samples are kept now, and where their members lie."""

from typing import Any

from dataset.errors import WorkFailed
from dataset.shards import SampleEntry, index_path, read_index
from dataset.snapshot import Sample, split_of, write_snapshot
from dataset.storage import Storage
from pipelines.state import ObjectState
from pipelines.status import Standing, load_standing

__all__ = ["freeze", "kept_samples"]


def freeze(root: Storage, where: str | None, validation_share: float) -> dict[str, Any]:
    """Write a snapshot of all kept samples that satisfy `where`; its manifest."""
    samples = kept_samples(root, load_standing(root), validation_share)
    return write_snapshot(root, samples, where)


def kept_samples(root: Storage, standing: Standing, validation_share: float) -> list[Sample]:
    """The samples of all kept objects. Raises WorkFailed if a shard or its index is damaged."""
    indexes: dict[str, dict[str, SampleEntry]] = {}
    samples = []
    for state in standing.kept:
        shard = str(state.results["pack"].data["shard"])
        if shard not in indexes:
            indexes[shard] = _index(root, shard)
        samples.append(_sample(state, shard, indexes[shard], validation_share))
    return samples


def _index(root: Storage, shard: str) -> dict[str, SampleEntry]:
    try:
        entries, _ = read_index(root, shard)
    except (OSError, ValueError) as error:
        raise WorkFailed(f"{index_path(shard)}: cannot read the index: {error}") from error
    return {entry.key: entry for entry in entries}


def _sample(
    state: ObjectState, shard: str, index: dict[str, SampleEntry], validation_share: float
) -> Sample:
    record, packed = state.record, state.results["pack"]
    try:
        entry = index[packed.data["sample"]]
    except KeyError:
        raise WorkFailed(f"{record.asset_id}: its sample is not in the index of {shard}") from None
    return Sample(
        asset_id=record.asset_id,
        split=split_of(record.asset_id, validation_share),
        rig=packed.rig,
        sha256=str(packed.data["sha256"]),
        render_key=packed.key,
        shard=shard,
        entry=entry,
        name=record.name,
        caption=record.caption,
        licence=record.licence,
        author=record.author,
        tags=record.tags,
        categories=record.categories,
    )
