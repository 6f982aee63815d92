"""`lrm diff`: two snapshots, or a snapshot and the kept samples of the present."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from core.errors import BadInput
from core.storage import Storage
from dataset.catalog.event_columns import LIST
from dataset.snapshots.difference import COMPARED, Difference, difference
from dataset.snapshots.manifests import read_manifest
from dataset.snapshots.references import NOW, names_of, resolve
from dataset.snapshots.rows import read_rows
from pipelines.building.dataset_status import DatasetState
from pipelines.building.projection import columns_for_counts
from pipelines.building.stages.geometry import GEOMETRY, PATH
from pipelines.building.stages.pack import PACK, SAMPLE, SHARD
from pipelines.export.create_snapshot import state_of_rig

__all__ = ["compare_snapshots", "summary_of"]


_DETAILS = (SHARD, SAMPLE, *LIST.of_snapshot)


def compare_snapshots(
    root: Storage, before: str, after: str
) -> tuple[Difference, list[dict[str, Any]]]:
    """Return the difference, and for each side its id (or `now`), names, rig and samples.

    `before` and `after` refer to snapshots, or one of them is `now`: the samples that are kept now,
    of the other side's rig. Raises BadInput.
    """
    if before == after == NOW:
        raise BadInput("give a snapshot to compare `now` with")
    manifests = {
        reference: read_manifest(root, resolve(root, reference))
        for reference in (before, after)
        if reference != NOW
    }
    tables = {
        reference: read_rows(root, manifest, COMPARED) for reference, manifest in manifests.items()
    }
    pending = None
    if NOW in (before, after):
        (other,) = tables.values()
        columns = [*columns_for_counts(), *(column.name for column in _DETAILS), PATH.name]
        dataset_state = state_of_rig(root, other["rig"][0].as_py(), columns)
        tables[NOW] = _kept_rows(dataset_state)
        pending = dataset_state.objects.table["asset_id"].filter(
            pa.array(dataset_state.decisions.where("pending"))
        )
    sides = [
        {
            "snapshot": manifests[reference]["snapshot"] if reference in manifests else NOW,
            "names": names_of(manifests.get(reference, {})),
            "rig": tables[reference]["rig"][0].as_py() if len(tables[reference]) else None,
            "samples": len(tables[reference]),
        }
        for reference in (before, after)
    ]
    return difference(tables[before], tables[after], pending), sides


def summary_of(compared: Difference, sides: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON of `lrm diff --json`, with all ids."""
    return {
        "before": sides[0],
        "after": sides[1],
        "added": compared.added.to_pylist(),
        "removed": compared.removed.to_pylist(),
        "pending": compared.pending.to_pylist(),
        "rendered": {why: ids.to_pylist() for why, ids in compared.rendered.items()},
        "changed": {name: ids.to_pylist() for name, ids in compared.changed.items()},
        "moved": compared.moved.to_pylist(),
    }


def _kept_rows(dataset_state: DatasetState) -> pa.Table:
    """Return the kept samples with the compared columns of a snapshot, except `split`.

    The split depends on an option of `lrm snapshot`.
    """
    kept = pa.array(dataset_state.decisions.where("kept"))
    objects = dataset_state.objects.table
    has_geometry = dataset_state.decider.good(GEOMETRY, dataset_state.objects.columns)
    sources = {
        "asset_id": "asset_id",
        "sha256": PACK.events.content.key,
        "shard": SHARD.key,
        "key": SAMPLE.key,
        **{column.name: column.key for column in LIST.of_snapshot},
    }
    table = pa.table({name: _column(objects, key).filter(kept) for name, key in sources.items()})
    identities = dataset_state.decider.identities
    inputs = zip(table["asset_id"].to_pylist(), table["sha256"].to_pylist(), strict=True)
    keys = [identities.key_of(PACK, asset_id, content) for asset_id, content in inputs]
    rig = pa.repeat(pa.scalar(dataset_state.config.rig), len(table))
    table = table.append_column("rig", rig).append_column("render_key", pa.array(keys, pa.string()))
    paths = pc.if_else(pa.array(has_geometry), _column(objects, PATH.key), None)
    return table.append_column("geometry", paths.filter(kept))


def _column(objects: pa.Table, key: str) -> pa.Array:
    """Return a column of the table of objects; null everywhere if it does not exist."""
    if key not in objects.column_names:
        return pa.nulls(len(objects), pa.string())
    return objects[key].combine_chunks()
