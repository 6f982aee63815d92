"""A snapshot: an immutable, content-addressed list of samples that a training run pins."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from core.errors import BadInput
from core.storage import Storage
from dataset.conditions import parse_condition
from dataset.format.shards import SampleEntry
from dataset.snapshots.credits import credit_lines
from dataset.snapshots.manifests import (
    SNAPSHOT_FORMAT,
    UnreadableSnapshot,
    last_created_at,
    list_snapshots,
    manifests,
    read_manifest,
    rows_path,
    write_manifest,
)
from dataset.snapshots.protection import PROTECT_DAYS, days_from_now, protected_until
from dataset.snapshots.references import check_name_is_free, names_of, resolve
from dataset.snapshots.rows import (
    BATCH,
    SCHEMA,
    credits_path,
    credits_problem,
    encode_rows,
    file_fields,
    id_of_rows,
    read_rows,
    rows_problem,
    sha256_of,
    summary_of_rows,
)

__all__ = [
    "Sample",
    "Samples",
    "Snapshot",
    "open_snapshot",
    "split_of",
    "write_snapshot",
]


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

    def __init__(self, table: pa.Table, rows: Int[np.ndarray, "n"] | None = None) -> None:
        self._table = table
        self._rows = np.arange(table.num_rows) if rows is None else rows
        """Numbers of the rows. A selection of them copies no row."""

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Samples": ...
    def __getitem__(self, index: int | slice) -> "Sample | Samples":
        if isinstance(index, slice):
            return Samples(self._table, self._rows[index])
        return _sample(self._table.slice(int(self._rows[index]), 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Sample]:
        block_ends = np.flatnonzero(np.diff(self._rows // BATCH)) + 1
        for rows in np.split(self._rows, block_ends) if len(self) else ():
            first = rows.min()
            block = self._table.slice(int(first), int(rows.max() - first) + 1)
            yield from map(_sample, block.take(pa.array(rows - first)).to_pylist())

    def of_split(self, split: str) -> "Samples":
        """Return the samples of one split."""
        return self._where(pc.equal(self._table["split"], split))

    def with_geometry(self) -> "Samples":
        """Return the samples that have companion geometry."""
        if "geometry" not in self._table.column_names:  # a snapshot of format 1
            return self[:0]
        return self._where(pc.is_valid(self._table["geometry"]))

    def _where(self, mask: pa.ChunkedArray) -> "Samples":
        return Samples(self._table, self._rows[mask.to_numpy()[self._rows]])


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
    while block := list(islice(rows, BATCH)):
        blocks.append(pa.Table.from_pylist(block, schema=SCHEMA))
    table = _filter(pa.concat_tables(blocks).sort_by("asset_id"), where)
    if table.num_rows == 0:
        condition = f" where {where}" if where else ""
        raise BadInput(f"{root.uri}: no kept sample for a snapshot{condition}")
    snapshot_id = id_of_rows(table)
    if name is not None:
        check_name_is_free(root, name, snapshot_id)
    manifest = {
        "format": SNAPSHOT_FORMAT,
        "snapshot": snapshot_id,
        "names": [] if name is None else [name],
        **summary_of_rows(table),
        "where": where,
        "credits": credits_path(snapshot_id),
        "protected_until": days_from_now(protect_days),
        "last_created": _after_all_others(root).isoformat(),
    }
    return _write(root, manifest, table)


def _after_all_others(root: Storage) -> datetime:
    """Return the present time, or a later one: `latest` is the greatest of all snapshots.

    The clock of another machine may have been ahead.
    """
    others = [last_created_at(manifest) for manifest in manifests(root)]
    return max([datetime.now(UTC), *(other + timedelta(microseconds=1) for other in others)])


def _write(root: Storage, manifest: dict[str, Any], table: pa.Table) -> dict[str, Any]:
    """Write the files of a snapshot that are missing or damaged, and return its manifest."""
    snapshot_id = manifest["snapshot"]
    existing, repaired = _existing(root, snapshot_id)
    manifest |= {"created": days_from_now(0)}
    if existing:
        longest = max(manifest, existing, key=protected_until)
        manifest |= {"created": existing["created"], "where": existing["where"]}
        manifest["names"] = sorted({*names_of(existing), *manifest["names"]})
        manifest |= {"protected_until": protected_until(longest).isoformat()}
    if "rows_sha256" in existing:
        manifest |= {name: existing[name] for name in ("rows_bytes", "rows_sha256")}
    else:
        rows = encode_rows(table)
        root.write(rows_path(snapshot_id), rows)
        manifest |= file_fields(rows)
    columns = [table[name].to_pylist() for name in ("asset_id", "name", "author", "licence")]
    lines = credit_lines(snapshot_id, manifest["licences"], zip(*columns, strict=True))
    credits_ = "".join(lines).encode()
    root.write(manifest["credits"], credits_)
    manifest["credits_sha256"] = sha256_of(credits_)
    # The manifest is written last, because a snapshot exists once it has a manifest.
    write_manifest(root, manifest)
    return manifest | ({"repaired": repaired} if repaired else {})


def _existing(root: Storage, snapshot_id: str) -> tuple[dict[str, Any], list[str]]:
    """Return the manifest of a snapshot that may exist, and what is wrong with its files.

    The manifest is empty if there is none that can be read. It has no checksum of the rows if they
    must be written again.
    """
    if snapshot_id not in list_snapshots(root):
        return {}, []
    try:
        manifest = read_manifest(root, snapshot_id)
    except UnreadableSnapshot as error:
        return {}, [f"{error.problem}; its names and the time of its creation are lost"]
    problems = [rows_problem(root, manifest, in_full=False), credits_problem(root, manifest)]
    if problems[0]:
        manifest.pop("rows_sha256", None)
    return manifest, [problem for problem in problems if problem]


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


def _sample(row: Mapping[str, Any]) -> Sample:
    rest = {name: value for name, value in row.items() if name not in _ENTRY_FIELDS}
    lists = {name: tuple(row[name] or ()) for name in ("tags", "categories")}
    entry = SampleEntry(**{name: row[name] for name in _ENTRY_FIELDS})
    return Sample(entry=entry, **rest | lists)
