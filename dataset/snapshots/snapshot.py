"""A snapshot: an immutable, content-addressed list of samples that a training run pins."""

import contextlib
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.config import canonical_json
from core.errors import BadInput
from core.storage import Storage
from dataset.catalog.event_columns import LIST
from dataset.conditions import parse_condition
from dataset.format.shards import SampleEntry
from dataset.snapshots.credits import credit_lines
from dataset.snapshots.protection import (
    PROTECT_DAYS,
    days_from_now,
    list_snapshots,
    protected_until,
    read_manifest,
    readable_rows,
    write_manifest,
)
from dataset.snapshots.references import check_name_is_free, names_of, resolve

__all__ = [
    "Sample",
    "Samples",
    "Snapshot",
    "open_snapshot",
    "read_rows",
    "rig_of",
    "split_of",
    "write_snapshot",
]

SNAPSHOT_FORMAT = 2
_BATCH = 1000
"""Number of rows that are Python objects at the same time."""
SCHEMA = pa.schema(
    [
        ("asset_id", pa.string()),
        ("key", pa.string()),
        ("split", pa.string()),
        ("rig", pa.string()),
        ("sha256", pa.string()),
        ("render_key", pa.string()),
        ("shard", pa.string()),
        ("members", pa.list_(pa.string())),
        ("offsets", pa.list_(pa.int64())),
        ("sizes", pa.list_(pa.int64())),
        ("crc32", pa.list_(pa.uint32())),
        *((column.name, column.type) for column in LIST.of_snapshot),
        ("geometry", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row of a snapshot: an object with its metadata, and the byte ranges of its views."""

    asset_id: str
    split: str
    """`train` or `validation`."""
    rig: str
    sha256: str
    """SHA-256 of the object's file."""
    render_key: str
    """Identity digest of the sample: its content, rig, settings and versions."""
    shard: str
    """Path of the tar below the dataset's root."""
    entry: SampleEntry
    name: str
    caption: str | None
    licence: str | None
    author: str | None
    tags: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    geometry: str | None = None
    """Path of the companion file (dataset.format.geometry) below the root, or None."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """An opened snapshot."""

    snapshot_id: str
    samples: "Samples"
    """Sorted by asset id."""

    def of_split(self, split: str) -> Sequence[Sample]:
        """Return the samples of one split, in the snapshot's order."""
        return self.samples.of_split(split)


class Samples(Sequence[Sample]):
    """The samples of a snapshot; each is created from its row of a table when it is accessed.

    A row has about a hundred members with three numbers each: as Python objects, all rows would
    take gigabytes.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Samples": ...
    def __getitem__(self, index: int | slice) -> "Sample | Samples":
        if isinstance(index, slice):
            return Samples(self._table.take(pa.array(range(len(self))[index], pa.int64())))
        row = range(len(self))[index]
        return _sample(self._table.slice(row, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Sample]:
        for batch in self._table.to_batches(max_chunksize=_BATCH):
            yield from map(_sample, batch.to_pylist())

    def of_split(self, split: str) -> "Samples":
        """Return the samples of one split."""
        return Samples(self._table.filter(pc.equal(self._table["split"], split)))


def split_of(asset_id: str, validation_share: float) -> str:
    """Return `train` or `validation`, which depends only on the share and the asset id."""
    fraction = int(hashlib.sha256(asset_id.encode()).hexdigest()[:16], 16) / 16.0**16
    return "validation" if fraction < validation_share else "train"


def write_snapshot(
    root: Storage,
    samples: Iterable[Sample],
    where: str | None,
    protect_days: float = PROTECT_DAYS,
    name: str | None = None,
) -> dict[str, Any]:
    """Create a snapshot of the samples that satisfy `where`, a SQL condition on its columns.

    Returns the manifest: id, number of samples, licence counts, end of the protection and more. The
    id is a digest of the rows, so equal samples give the same snapshot; creating it again extends
    its protection and adds the `name`. Raises BadInput if `where` is invalid or selects no sample,
    or if the name is that of another snapshot.
    """
    rows, blocks = map(_row, samples), [SCHEMA.empty_table()]
    while block := list(islice(rows, _BATCH)):
        blocks.append(pa.Table.from_pylist(block, schema=SCHEMA))
    table = _filter(pa.concat_tables(blocks).sort_by("asset_id"), where)
    if table.num_rows == 0:
        condition = f" where {where}" if where else ""
        raise BadInput(f"{root.uri}: no kept sample for a snapshot{condition}")
    snapshot_id = _digest(table)
    if name is not None:
        check_name_is_free(root, name, snapshot_id)
    licences = Counter(licence or "unknown" for licence in table["licence"].to_pylist())
    manifest = {
        "format": SNAPSHOT_FORMAT,
        "snapshot": snapshot_id,
        "names": [] if name is None else [name],
        "rig": table["rig"][0].as_py(),
        "samples": table.num_rows,
        "splits": dict(Counter(table["split"].to_pylist())),
        "licences": dict(licences),
        "bytes": pc.sum(pc.list_flatten(table["sizes"])).as_py(),
        "where": where,
        "credits": f"snapshots/{snapshot_id}.credits.md",
        "protected_until": days_from_now(protect_days),
        # With microseconds, because `latest` is the greatest of all snapshots.
        "last_created": datetime.now(UTC).isoformat(),
    }
    return _write(root, manifest, table)


def _digest(table: pa.Table) -> str:
    hasher = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=_BATCH):
        for row in batch.to_pylist():
            hasher.update(canonical_json(_identity(row)).encode() + b"\n")
    return hasher.hexdigest()[:16]


def _write(root: Storage, manifest: dict[str, Any], table: pa.Table) -> dict[str, Any]:
    """Write the missing files of a snapshot, and return its manifest."""
    snapshot_id = manifest["snapshot"]
    if snapshot_id in list_snapshots(root):
        existing = read_manifest(root, snapshot_id)
        longest = max(manifest, existing, key=protected_until)
        manifest |= {"created": existing["created"], "where": existing["where"]}
        manifest["names"] = sorted({*names_of(existing), *manifest["names"]})
        manifest |= {"protected_until": protected_until(longest).isoformat()}
    else:
        manifest |= {"created": days_from_now(0)}
        out = io.BytesIO()
        pq.write_table(table, out, compression="zstd")
        root.write(f"snapshots/{snapshot_id}.parquet", out.getvalue())
    columns = [table[name].to_pylist() for name in ("asset_id", "name", "author", "licence")]
    with root.writing(manifest["credits"]) as file:
        for line in credit_lines(snapshot_id, manifest["licences"], zip(*columns, strict=True)):
            file.write(line.encode())
    # The manifest is written last, because a snapshot exists once it has a manifest.
    write_manifest(root, manifest)
    return manifest


def open_snapshot(root: Storage, reference: str) -> Snapshot:
    """Read a snapshot by its id, the start of its id, its name, or `latest`.

    Raises BadInput if it does not exist, if its format is newer, or if a compaction deleted shards
    of it after its protection had ended.
    """
    snapshot_id = resolve(root, reference)
    manifest = read_manifest(root, snapshot_id)
    if "compacted" in manifest:
        raise BadInput(
            f"snapshot {snapshot_id}: shards of it are gone: its protection ended on "
            f"{protected_until(manifest):%Y-%m-%d} and `lrm compact` deleted them; create a new "
            "snapshot with `lrm snapshot`"
        )
    return Snapshot(snapshot_id=snapshot_id, samples=Samples(read_rows(root, manifest)))


def read_rows(
    root: Storage, manifest: Mapping[str, Any], columns: Sequence[str] | None = None
) -> pa.Table:
    """Return the rows of a snapshot, also of one whose shards are gone.

    `columns` limits the columns that are read; those that its format lacks are left out. Raises
    BadInput if its format is newer, or if the rows are missing or damaged.
    """
    snapshot_id = manifest["snapshot"]
    if manifest["format"] > SNAPSHOT_FORMAT:
        raise BadInput(
            f"snapshot {snapshot_id} has format {manifest['format']}, newer than {SNAPSHOT_FORMAT};"
            " update the software"
        )
    path = f"snapshots/{snapshot_id}.parquet"
    if columns is None:
        with readable_rows(root, snapshot_id):
            return pq.read_table(io.BytesIO(root.read(path)))
    # The columns of the members, which may not be among them, have most of the bytes.
    with readable_rows(root, snapshot_id), root.open(path) as file:
        rows = pq.ParquetFile(file)
        names = rows.schema_arrow.names
        return rows.read([name for name in columns if name in names])


def rig_of(root: Storage, manifest: Mapping[str, Any]) -> str | None:
    """Return the rig of a snapshot's samples; manifests of earlier versions do not contain it.

    None if the rows cannot be read.
    """
    if "rig" in manifest:
        return str(manifest["rig"])
    with contextlib.suppress(BadInput):
        return str(read_rows(root, manifest, ["rig"])["rig"][0].as_py())
    return None


def _filter(table: pa.Table, where: str | None) -> pa.Table:
    """Return the rows that satisfy a SQL condition on the columns of the table."""
    if where is None:
        return table
    selected = np.zeros(table.num_rows, dtype=bool)
    selected[parse_condition("--where", where, table.schema, "samples").rows(table)] = True
    return table.filter(pa.array(selected))


_ENTRY_FIELDS = ("key", "members", "offsets", "sizes", "crc32")


def _row(sample: Sample) -> dict[str, Any]:
    row = {name: getattr(sample, name) for name in SCHEMA.names if name not in _ENTRY_FIELDS}
    return row | {name: getattr(sample.entry, name) for name in _ENTRY_FIELDS}


def _identity(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that the id is a digest of; without geometry they are those of format 1."""
    return {name: value for name, value in row.items() if (name, value) != ("geometry", None)}


def _sample(row: Mapping[str, Any]) -> Sample:
    rest = {name: value for name, value in row.items() if name not in _ENTRY_FIELDS}
    lists = {name: tuple(row[name] or ()) for name in ("tags", "categories")}
    entry = SampleEntry(**{name: row[name] for name in _ENTRY_FIELDS})
    return Sample(entry=entry, **rest | lists)
