"""A snapshot: an immutable, content-addressed list of samples that a training run pins."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dataset.config import canonical_json
from dataset.errors import BadInput
from dataset.shards import SampleEntry
from dataset.storage import Storage

__all__ = ["Sample", "Snapshot", "list_snapshots", "open_snapshot", "split_of", "write_snapshot"]

SNAPSHOT_FORMAT = 1
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
        ("name", pa.string()),
        ("caption", pa.string()),
        ("licence", pa.string()),
        ("author", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("categories", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row of a snapshot: an object, its words, and where its views lie."""

    asset_id: str
    split: str
    """`train` or `validation`."""
    rig: str
    sha256: str
    """Of the object's file."""
    render_key: str
    shard: str
    """Path of the tar below the dataset's root."""
    entry: SampleEntry
    name: str
    caption: str | None
    licence: str | None
    author: str | None
    tags: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """An opened snapshot."""

    snapshot_id: str
    samples: Sequence[Sample]
    """Sorted by asset id."""

    def of_split(self, split: str) -> list[Sample]:
        """The samples of one split, in the snapshot's order."""
        return [sample for sample in self.samples if sample.split == split]


def split_of(asset_id: str, validation_share: float) -> str:
    """`train` or `validation`, by a hash of the asset id alone: an object never changes sides."""
    place = int(hashlib.sha256(asset_id.encode()).hexdigest()[:16], 16) / 16.0**16
    return "validation" if place < validation_share else "train"


def write_snapshot(root: Storage, samples: Sequence[Sample], where: str | None) -> dict[str, Any]:
    """Freeze the samples that satisfy `where` (a SQL condition over the columns of the snapshot).

    Returns the manifest: id, number of samples, licence counts. The id is a digest of the rows, so
    the same samples always give the same snapshot. Raises BadInput if `where` is no condition or
    nothing is left.
    """
    rows = [_row(sample) for sample in sorted(samples, key=lambda s: s.asset_id)]
    table = _filter(pa.Table.from_pylist(rows, schema=SCHEMA), where)
    if table.num_rows == 0:
        raise BadInput(f"{root.uri}: no kept sample to freeze" + (f" where {where}" * bool(where)))
    kept = table.to_pylist()
    hasher = hashlib.sha256()
    for row in kept:
        hasher.update(canonical_json(row).encode() + b"\n")
    snapshot_id = hasher.hexdigest()[:16]
    manifest = {
        "format": SNAPSHOT_FORMAT,
        "snapshot": snapshot_id,
        "samples": len(kept),
        "splits": dict(Counter(row["split"] for row in kept)),
        "licences": dict(Counter(row["licence"] or "unknown" for row in kept)),
        "bytes": sum(sum(row["sizes"]) for row in kept),
        "where": where,
    }
    if not root.exists(_manifest_path(snapshot_id)):
        out = io.BytesIO()
        pq.write_table(table, out, compression="zstd")
        root.write(f"snapshots/{snapshot_id}.parquet", out.getvalue())
        created = {"created": datetime.now(UTC).isoformat(timespec="seconds")}
        # The manifest comes last: a snapshot exists when its manifest does.
        root.write(_manifest_path(snapshot_id), json.dumps(manifest | created, indent=1).encode())
    return manifest


def open_snapshot(root: Storage, snapshot_id: str) -> Snapshot:
    """Read a snapshot. Raises BadInput if there is none of that id, naming those there are."""
    if not root.exists(_manifest_path(snapshot_id)):
        known = ", ".join(list_snapshots(root)) or "none"
        raise BadInput(f"{root.uri}: no snapshot {snapshot_id!r}; there are: {known}")
    manifest = json.loads(root.read(_manifest_path(snapshot_id)))
    if manifest["format"] > SNAPSHOT_FORMAT:
        raise BadInput(
            f"snapshot {snapshot_id} has format {manifest['format']}, newer than {SNAPSHOT_FORMAT};"
            " update the software"
        )
    table = pq.read_table(io.BytesIO(root.read(f"snapshots/{snapshot_id}.parquet")))
    samples = [_sample(row) for row in table.to_pylist()]
    return Snapshot(snapshot_id=snapshot_id, samples=samples)


def list_snapshots(root: Storage) -> list[str]:
    """The ids of all snapshots of a dataset."""
    names = root.list_files("snapshots")
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def _manifest_path(snapshot_id: str) -> str:
    return f"snapshots/{snapshot_id}.json"


def _filter(table: pa.Table, where: str | None) -> pa.Table:
    if where is None:
        return table
    with duckdb.connect(config={"enable_external_access": "false"}) as connection:
        connection.register("samples", table)
        try:
            keys = connection.sql(
                f"SELECT asset_id FROM samples WHERE ({where})"  # noqa: S608 - the user's own data
            ).fetchall()
        except duckdb.Error as error:
            problem = str(error).splitlines()[0]
            raise BadInput(f"--where {where!r} is no condition: {problem}") from None
    chosen = {key for (key,) in keys}
    mask = pa.array([asset_id in chosen for asset_id in table["asset_id"].to_pylist()])
    return table.filter(mask)


_ENTRY_FIELDS = ("key", "members", "offsets", "sizes", "crc32")


def _row(sample: Sample) -> dict[str, Any]:
    row = {name: getattr(sample, name) for name in SCHEMA.names if name not in _ENTRY_FIELDS}
    return row | {name: getattr(sample.entry, name) for name in _ENTRY_FIELDS}


def _sample(row: Mapping[str, Any]) -> Sample:
    rest = {name: value for name, value in row.items() if name not in _ENTRY_FIELDS}
    lists = {name: tuple(row[name] or ()) for name in ("tags", "categories")}
    entry = SampleEntry(**{name: row[name] for name in _ENTRY_FIELDS})
    return Sample(entry=entry, **rest | lists)
