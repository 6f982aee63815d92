"""The rows of a snapshot as a Parquet file, read only if it is the one that was written.

The manifest has the size and SHA-256 of the file, which every reader compares. The id is a digest
of the rows: the full check computes it again. A manifest of an earlier version has no SHA-256, so
every reader makes the full check there, at about 60 s for a million samples.
"""

import contextlib
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.config import canonical_json
from core.errors import BadInput, first_line
from core.storage import Storage
from dataset.catalog.event_columns import LIST
from dataset.snapshots.manifests import (
    SNAPSHOT_FORMAT,
    UnreadableSnapshot,
    manifest_path,
    manifests,
    read_file,
    read_manifest,
    rows_path,
    write_manifest,
)

__all__ = [
    "BATCH",
    "SCHEMA",
    "check_snapshot",
    "credits_path",
    "credits_problem",
    "encode_rows",
    "file_fields",
    "id_of_rows",
    "open_rows",
    "read_rows",
    "rig_of",
    "rows_problem",
    "sha256_of",
    "summary_of_rows",
    "write_missing_checksums",
]

BATCH = 1000
"""Number of rows that are Python objects at the same time."""
_UNPARSABLE = (pa.ArrowException, OSError, ValueError, TypeError, LookupError)
"""Errors of Arrow, and of values of a wrong kind, for bytes that are not the file of a snapshot."""
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


def credits_path(snapshot_id: str) -> str:
    """Return the path of a snapshot's CREDITS file below the root."""
    return f"snapshots/{snapshot_id}.credits.md"


def encode_rows(table: pa.Table) -> bytes:
    """Return the Parquet file of rows."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def file_fields(rows: bytes) -> dict[str, Any]:
    """Return the fields of a manifest that describe its Parquet file."""
    return {"rows_bytes": len(rows), "rows_sha256": sha256_of(rows)}


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of bytes as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def summary_of_rows(table: pa.Table) -> dict[str, Any]:
    """Return the fields of a manifest that follow from its rows."""
    licences = Counter(licence or "unknown" for licence in table["licence"].to_pylist())
    return {
        "rig": table["rig"][0].as_py(),
        "samples": table.num_rows,
        "splits": dict(Counter(table["split"].to_pylist())),
        "licences": dict(licences),
        "bytes": pc.sum(pc.list_flatten(table["sizes"])).as_py(),
    }


def id_of_rows(table: pa.Table) -> str:
    """Return the id of a snapshot: a digest of its rows, at about 60 s for a million samples."""
    hasher = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=BATCH):
        for row in batch.to_pylist():
            hasher.update(canonical_json(_identity(row)).encode() + b"\n")
    return hasher.hexdigest()[:16]


def _identity(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that the id is a digest of; without geometry they are those of format 1."""
    return {name: value for name, value in row.items() if (name, value) != ("geometry", None)}


def read_rows(
    root: Storage, manifest: Mapping[str, Any], columns: Sequence[str] | None = None
) -> pa.Table:
    """Return the rows of a snapshot, also of one whose shards are gone.

    `columns` limits the columns; those that its format lacks are left out. Raises BadInput if its
    format is newer, or if the rows are missing or not those that were written.
    """
    rows = open_rows(root, manifest)
    names = rows.schema_arrow.names
    wanted = None if columns is None else [name for name in columns if name in names]
    # The columns of the members, which may not be among them, have most of the bytes.
    return rows.read(wanted)


def open_rows(root: Storage, manifest: Mapping[str, Any]) -> pq.ParquetFile:
    """Return the verified Parquet file of a snapshot, which is in memory as a whole.

    It has about a kilobyte per sample. Raises as `read_rows`.
    """
    return pq.ParquetFile(pa.BufferReader(_verified(root, manifest)))


def rows_problem(root: Storage, manifest: Mapping[str, Any], *, in_full: bool) -> str | None:
    """Return why the rows are not those that were written; None if they are.

    The file is compared with the manifest; `in_full` also computes the id and the counts of the
    manifest again. Raises BadInput if the format of the snapshot is newer.
    """
    try:
        _verified(root, manifest, in_full=in_full)
    except UnreadableSnapshot as error:
        return error.problem
    return None


def check_snapshot(root: Storage, snapshot_id: str) -> UnreadableSnapshot | None:
    """Return what is wrong with the files of a snapshot; None if nothing is.

    This is the full check, at about 60 s for a million samples. Raises BadInput if the format of
    the snapshot is newer, or if it was deleted meanwhile.
    """
    try:
        manifest = read_manifest(root, snapshot_id)
        _verified(root, manifest, in_full=True)
    except UnreadableSnapshot as error:
        return error
    problem = credits_problem(root, manifest)
    return None if problem is None else UnreadableSnapshot(root, snapshot_id, problem)


def credits_problem(root: Storage, manifest: Mapping[str, Any]) -> str | None:
    """Return why the CREDITS file is not the one that was written; None if it is."""
    path, expected = credits_path(manifest["snapshot"]), manifest.get("credits_sha256")
    try:
        stored = sha256_of(read_file(root, manifest["snapshot"], path))
    except FileNotFoundError:
        return f"{path} is missing" if "credits" in manifest else None
    except UnreadableSnapshot as error:
        return error.problem
    return None if expected in (None, stored) else f"{path} was changed after it was written"


def write_missing_checksums(root: Storage) -> None:
    """Add the checksum of its rows to each manifest of an earlier version that matches its rows.

    The caller holds the lock `snapshots`. Afterwards no reader makes the full check.
    """
    for manifest in manifests(root):
        if "rows_sha256" not in manifest:
            with contextlib.suppress(BadInput):
                fields = file_fields(_verified(root, manifest))
                write_manifest(root, {**manifest, **fields})


def rig_of(root: Storage, manifest: Mapping[str, Any]) -> str | None:
    """Return the rig of a snapshot's samples, to show it; None if the rows cannot be read.

    Manifests of earlier versions do not contain it; then the rows are not verified.
    """
    if "rig" in manifest:
        return str(manifest["rig"])
    with (
        contextlib.suppress(*_UNPARSABLE),
        root.open(rows_path(manifest["snapshot"])) as file,
    ):
        return str(pq.ParquetFile(file).read(["rig"])["rig"][0].as_py())
    return None


def _verified(root: Storage, manifest: Mapping[str, Any], *, in_full: bool = False) -> bytes:
    """Return the bytes of a snapshot's Parquet file, if they are those that were written."""
    snapshot_id = manifest["snapshot"]
    if manifest["format"] > SNAPSHOT_FORMAT:
        raise BadInput(
            f"snapshot {snapshot_id} has format {manifest['format']}, newer than {SNAPSHOT_FORMAT};"
            " update the software"
        )
    path = rows_path(snapshot_id)
    try:
        data = read_file(root, snapshot_id, path)
    except FileNotFoundError:
        raise UnreadableSnapshot(root, snapshot_id, f"{path} is missing") from None
    has_checksum = "rows_sha256" in manifest
    problem = None
    if has_checksum and {**manifest, **file_fields(data)} != manifest:
        problem = f"{path} was changed after it was written"
    elif in_full or not has_checksum:
        problem = _problem_of_content(manifest, data)
    if problem is not None:
        raise UnreadableSnapshot(root, snapshot_id, problem)
    return data


def _problem_of_content(manifest: Mapping[str, Any], data: bytes) -> str | None:
    """Return how rows differ from their id, or a manifest from its rows; None if they agree."""
    path = rows_path(manifest["snapshot"])
    try:
        table = pq.read_table(pa.BufferReader(data))
        if id_of_rows(table) != manifest["snapshot"]:
            return f"{path} has other samples than those of its id"
        summary = summary_of_rows(table)
    except _UNPARSABLE as error:
        return f"{path} is damaged ({first_line(error)})"
    wrong = [name for name, value in summary.items() if manifest.get(name, value) != value]
    if wrong:
        return f"{manifest_path(manifest['snapshot'])} has other {', '.join(wrong)} than {path}"
    return None
