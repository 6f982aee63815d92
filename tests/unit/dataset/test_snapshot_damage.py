"""Every file of a snapshot in every wrong state: no reader accepts it, and creating the snapshot
again writes it again."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.storage import Storage
from dataset.snapshots.deletion import delete_snapshots
from dataset.snapshots.manifests import (
    UnreadableSnapshot,
    manifest_path,
    read_manifest,
    rows_path,
    write_manifest,
)
from dataset.snapshots.protection import files_of_snapshots
from dataset.snapshots.references import resolve
from dataset.snapshots.rows import (
    check_snapshot,
    credits_path,
    encode_rows,
    file_fields,
    read_rows,
    write_missing_checksums,
)
from dataset.snapshots.snapshot import open_snapshot, write_snapshot
from tests.support.small_shards import small_sample

SAMPLES = [small_sample(number) for number in range(9)]
OTHERS = [small_sample(number, caption="other") for number in range(9)]
NEW = ("checksum", "rows_sha256", "rows_bytes", "credits_sha256")
"""The fields that manifests of earlier versions lack."""


def edited(table: pa.Table, name: str, value: Any) -> pa.Table:
    """Return the table with another value in one row of a column."""
    field = table.schema.field(name)
    column = pa.array([value, *table[name].to_pylist()[1:]], field.type)
    return table.set_column(table.column_names.index(name), field, column)


ROWS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "rows missing at the end": lambda table: table.slice(0, 3),
    "no rows": lambda table: table.slice(0, 0),
    "rows in another order": lambda table: table.take(list(range(9))[::-1]),
    "a row twice": lambda table: pa.concat_tables([table, table.slice(0, 1)]),
    "another caption": lambda table: edited(table, "caption", "other"),
    "an invented id": lambda table: edited(table, "asset_id", "objaverse:invented"),
    "another shard": lambda table: edited(table, "shard", "shards/test/b.tar"),
    "another split": lambda table: edited(table, "split", "validation"),
    "another checksum of a member": lambda table: edited(table, "crc32", [2]),
    "another column": lambda table: table.append_column("more", table["key"]),
    "a column less": lambda table: table.drop_columns(["author"]),
    "a needed column less": lambda table: table.drop_columns(["shard"]),
}
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "halved": lambda data: data[: len(data) // 2],
    "zeroed": lambda data: bytes(len(data)),
    "no parquet": lambda data: b"PAR1 no parquet PAR1",
}


@pytest.fixture
def root(tmp_path) -> Storage:
    return Storage(str(tmp_path))


def create(root: Storage, samples: list[Any] = SAMPLES, **options: Any) -> dict[str, Any]:
    return write_snapshot(root, samples, None, **options)


def make_old(root: Storage, snapshot_id: str) -> None:
    """Give a snapshot the manifest of an earlier version."""
    manifest = json.loads(root.read(manifest_path(snapshot_id)))
    old = {name: value for name, value in manifest.items() if name not in NEW}
    root.write(manifest_path(snapshot_id), json.dumps(old).encode())


def damage_rows(root: Storage, snapshot_id: str, kind: str) -> None:
    path = rows_path(snapshot_id)
    if kind in ROWS:
        root.write(path, encode_rows(ROWS[kind](pq.read_table(root.resolve(path)))))
    elif kind in BYTES:
        root.write(path, BYTES[kind](root.read(path)))
    else:
        root.delete(path)
    if kind == "another snapshot's":
        root.write(path, root.read(rows_path(create(root, OTHERS)["snapshot"])))


def assert_unreadable(root: Storage, snapshot_id: str, file: str) -> None:
    """Assert that no reader accepts the snapshot, in one line with the file and the remedies."""
    readers = (
        lambda: open_snapshot(root, snapshot_id),
        lambda: read_rows(root, read_manifest(root, snapshot_id)),
        lambda: read_rows(root, read_manifest(root, snapshot_id), ["asset_id", "split"]),
        lambda: list(files_of_snapshots(root)),
    )
    for read in readers:
        with pytest.raises(UnreadableSnapshot) as error:
            read()
        text = str(error.value)
        assert file in text
        assert f"lrm snapshot --root {root.uri}; " in text
        assert f"--delete {snapshot_id} --force" in text
        assert "\n" not in text
    assert file in str(check_snapshot(root, snapshot_id))


def assert_repaired(root: Storage, snapshot_id: str, file: str) -> None:
    """Assert that creating the snapshot again restores it, says so, and is then complete."""
    again = create(root)
    assert again["snapshot"] == snapshot_id
    (problem,) = again["repaired"]
    assert problem.startswith(file)
    assert len(open_snapshot(root, snapshot_id).samples) == len(SAMPLES)
    assert check_snapshot(root, snapshot_id) is None
    assert "repaired" not in create(root)
    assert "repaired" not in read_manifest(root, snapshot_id)


@pytest.mark.parametrize("is_old", [False, True], ids=["new", "old"])
@pytest.mark.parametrize("kind", [*ROWS, *BYTES, "missing", "another snapshot's"])
def test_no_reader_accepts_other_rows(root: Storage, kind: str, is_old: bool):
    snapshot_id = create(root, name="v1")["snapshot"]
    if is_old:
        make_old(root, snapshot_id)
    assert check_snapshot(root, snapshot_id) is None
    damage_rows(root, snapshot_id, kind)
    assert_unreadable(root, snapshot_id, rows_path(snapshot_id))
    assert_repaired(root, snapshot_id, rows_path(snapshot_id))
    assert resolve(root, "v1") == snapshot_id


def test_every_changed_byte_is_noticed(root: Storage):
    """Also one that changes no row."""
    snapshot_id = create(root)["snapshot"]
    path = rows_path(snapshot_id)
    data = root.read(path)
    for at in range(0, len(data), len(data) // 20):
        root.write(path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(UnreadableSnapshot, match=f"{path} was changed"):
            open_snapshot(root, snapshot_id)
    root.write(path, data + b"\n")
    assert_unreadable(root, snapshot_id, path)


FAR = (datetime.now(UTC) + timedelta(days=9999)).isoformat()
FIELDS: dict[str, Any] = {
    "samples": 3,
    "splits": {"train": 3},
    "licences": {"cc0": 9},
    "bytes": 1,
    "rig": "other",
    "rows_bytes": 1,
    "rows_sha256": "0" * 64,
    "credits_sha256": "0" * 64,
    "names": ["v2"],
    "where": "asset_id = ''",
    "created": FAR,
    "last_created": FAR,
    "protected_until": FAR,
    "compacted": FAR,
    "more": 1,
    "checksum": "0" * 64,
}


@pytest.mark.parametrize("name", FIELDS)
def test_an_edited_manifest_is_noticed(root: Storage, name: str):
    snapshot_id = create(root, name="v1")["snapshot"]
    path = manifest_path(snapshot_id)
    manifest = json.loads(root.read(path))
    assert manifest.get(name) != FIELDS[name]
    root.write(path, json.dumps(manifest | {name: FIELDS[name]}).encode())
    assert_unreadable(root, snapshot_id, path)
    with pytest.raises(UnreadableSnapshot):
        resolve(root, "latest")
    assert_repaired(root, snapshot_id, path)


@pytest.mark.parametrize("name", ["samples", "splits", "licences", "bytes", "rig"])
def test_a_manifest_must_agree_with_its_rows(root: Storage, name: str):
    """Older manifests have no checksum; a forged one is found by the full check."""
    snapshot_id = create(root)["snapshot"]
    path = manifest_path(snapshot_id)
    write_manifest(root, read_manifest(root, snapshot_id) | {name: FIELDS[name]})
    assert path in str(check_snapshot(root, snapshot_id))
    make_old(root, snapshot_id)
    assert_unreadable(root, snapshot_id, path)
    assert_repaired(root, snapshot_id, path)


@pytest.mark.parametrize("kind", ROWS)
def test_the_full_check_finds_forged_rows(root: Storage, kind: str):
    snapshot_id = create(root)["snapshot"]
    damage_rows(root, snapshot_id, kind)
    fields = file_fields(root.read(rows_path(snapshot_id)))
    write_manifest(root, read_manifest(root, snapshot_id) | fields)
    assert rows_path(snapshot_id) in str(check_snapshot(root, snapshot_id))


def test_without_its_checksum_a_manifest_is_not_taken_for_an_old_one(root: Storage):
    snapshot_id = create(root)["snapshot"]
    manifest = read_manifest(root, snapshot_id)
    del manifest["checksum"]
    root.write(manifest_path(snapshot_id), json.dumps(manifest).encode())
    assert_unreadable(root, snapshot_id, manifest_path(snapshot_id))


@pytest.mark.parametrize("content", [None, b"", b"other"])
def test_changed_credits_are_found_and_written_again(root: Storage, content: bytes | None):
    snapshot_id = create(root)["snapshot"]
    path = credits_path(snapshot_id)
    root.delete(path)
    if content is not None:
        root.write(path, content)
    assert path in str(check_snapshot(root, snapshot_id))
    assert len(open_snapshot(root, snapshot_id).samples) == 9
    assert_repaired(root, snapshot_id, path)


IN_PLACE = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", IN_PLACE)
@pytest.mark.parametrize("path_of", [rows_path, manifest_path, credits_path])
def test_what_is_no_file_is_an_error_with_its_name(root: Storage, tmp_path, path_of, kind: str):
    snapshot_id = create(root)["snapshot"]
    path = path_of(snapshot_id)
    root.delete(path)
    IN_PLACE[kind](tmp_path / path)
    if path_of is credits_path:
        assert path in str(check_snapshot(root, snapshot_id))
    else:
        assert_unreadable(root, snapshot_id, path)
    if kind != "folder":
        assert_repaired(root, snapshot_id, path)


def test_rows_without_a_manifest_are_kept_until_they_are_deleted(root: Storage, tmp_path, caplog):
    """It was lost, or its creation was interrupted: other snapshots do not depend on it."""
    lost, other = create(root, name="v1")["snapshot"], create(root, OTHERS)["snapshot"]
    root.delete(manifest_path(lost))
    (tmp_path / manifest_path(lost)).symlink_to("gone")
    assert resolve(root, "latest") == other
    assert f"warning: {root.uri}: snapshot {lost} cannot be read: " in caplog.text
    for text in ("v1", lost):
        with pytest.raises(
            UnreadableSnapshot, match=rf"{lost}\.json is missing: .*--delete {lost}"
        ):
            open_snapshot(root, text)
    assert manifest_path(lost) in str(check_snapshot(root, lost))
    caplog.clear()
    files = {each.snapshot_id: each for each in files_of_snapshots(root)}
    assert manifest_path(lost) in caplog.text
    assert files[lost].is_protected
    assert files[lost].samples == files[other].samples
    assert create(root)["snapshot"] == lost
    assert check_snapshot(root, lost) is None
    root.delete(manifest_path(lost))
    delete_snapshots(root, [lost], force=True)
    assert {each.snapshot_id for each in files_of_snapshots(root)} == {other}
    assert not [name for name in root.list_files("snapshots") if lost in name]


def test_checksums_are_added_to_matching_snapshots_of_earlier_versions(root: Storage):
    good, bad, new = (
        create(root, [replace(sample, caption=text) for sample in SAMPLES])["snapshot"]
        for text in ("a", "b", "c")
    )
    for snapshot_id in (good, bad):
        make_old(root, snapshot_id)
    damage_rows(root, bad, "another caption")
    before = root.read(manifest_path(new))
    write_missing_checksums(root)
    assert read_manifest(root, good)["rows_sha256"]
    assert "rows_sha256" not in read_manifest(root, bad)
    assert root.read(manifest_path(new)) == before
    assert check_snapshot(root, good) is None


def test_latest_is_the_last_one_also_after_a_clock_was_ahead(root: Storage):
    ahead = create(root)
    write_manifest(root, read_manifest(root, ahead["snapshot"]) | {"last_created": FAR})
    last = create(root, OTHERS)["snapshot"]
    assert resolve(root, "latest") == last
    assert create(root)["snapshot"] == resolve(root, "latest") == ahead["snapshot"]
