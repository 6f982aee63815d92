"""Snapshots of both formats: created before objects had geometry, and after."""

import hashlib
import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from core.config import canonical_json
from core.errors import BadInput
from core.storage import Storage
from dataset.format.shards import SampleEntry
from dataset.snapshots.manifests import list_snapshots
from dataset.snapshots.rows import SCHEMA
from dataset.snapshots.snapshot import Sample, open_snapshot, write_snapshot


def sample(number: int, **fields) -> Sample:
    return Sample(
        asset_id=f"objaverse:{number:032x}",
        split="train",
        rig="lrm32",
        sha256="s",
        render_key="r",
        shard="shards/lrm32/a.tar",
        entry=SampleEntry(
            key=f"objaverse-{number:032x}", members=("json",), offsets=(0,), sizes=(5,), crc32=(1,)
        ),
        name="chair",
        caption=None,
        licence="by",
        author=None,
        **fields,
    )


@pytest.fixture
def root(tmp_path) -> Storage:
    return Storage(str(tmp_path))


def test_a_snapshot_returns_its_samples(root: Storage):
    samples = [sample(1, geometry="geometry/cube/ab/abc.npz"), sample(2)]
    manifest = write_snapshot(root, samples, None)
    opened = open_snapshot(root, manifest["snapshot"]).samples
    assert [item.geometry for item in opened] == ["geometry/cube/ab/abc.npz", None]
    assert [item.asset_id for item in opened] == [item.asset_id for item in samples]


def test_geometry_is_part_of_the_identity(root: Storage):
    plain = [sample(1), sample(2)]
    full = [replace(item, geometry=f"geometry/{item.entry.key}.npz") for item in plain]
    ids = {write_snapshot(root, samples, None)["snapshot"] for samples in (plain, full, full[:1])}
    assert len(ids) == 3
    assert list_snapshots(root) == sorted(ids)


def test_a_condition_can_require_geometry(root: Storage):
    samples = [sample(1), sample(2, geometry="geometry/cube/ab/abc.npz")]
    manifest = write_snapshot(root, samples, "geometry IS NOT NULL")
    assert [item.asset_id for item in open_snapshot(root, manifest["snapshot"]).samples] == [
        samples[1].asset_id
    ]


def test_a_selection_of_samples_is_that_of_their_list(
    root: Storage, monkeypatch: pytest.MonkeyPatch
):
    """More samples than are Python objects at the same time, in the order of the selection."""
    monkeypatch.setattr("dataset.snapshots.snapshot.BATCH", 10)
    samples = [
        replace(
            sample(number),
            split="validation" if number % 7 == 3 or 120 < number < 135 else "train",
            geometry=None if number % 3 == 0 else f"geometry/{number}.npz",
        )
        for number in range(215)
    ]
    opened = open_snapshot(root, write_snapshot(root, samples, None)["snapshot"]).samples
    chosen = [one for one in samples if one.split == "validation"]
    with_geometry = [one for one in chosen if one.geometry]
    for selected, expected in (
        (opened, samples),
        (opened.of_split("validation"), chosen),
        (opened.of_split("validation").with_geometry(), with_geometry),
        (opened.with_geometry().of_split("validation"), with_geometry),
        (opened[::-30], samples[::-30]),
        (opened.with_geometry()[5:3], []),
        (opened.of_split("test"), []),
    ):
        ids = [one.asset_id for one in expected]
        assert [one.asset_id for one in selected] == ids
        assert len(selected) == len(ids)
        for index in range(-1, min(2, len(ids))):
            assert not ids or selected[index].asset_id == ids[index]
        with pytest.raises(IndexError):
            selected[len(ids)]


@pytest.mark.parametrize("column", ["licence", "license", "samples.license"])
def test_both_spellings_of_licence_work_in_a_condition(root: Storage, column: str):
    samples = [sample(1), replace(sample(2), licence="cc0")]
    manifest = write_snapshot(root, samples, f"{column} = 'cc0'")
    (row,) = open_snapshot(root, manifest["snapshot"]).samples
    assert row.asset_id == samples[1].asset_id
    assert manifest["snapshot"] == write_snapshot(root, samples[1:], None)["snapshot"]


def test_a_snapshot_of_format_1_opens_and_keeps_its_id(root: Storage):
    """Format 1 has no column `geometry`; a new snapshot of the same samples has the same id."""
    snapshot_id = write_snapshot(root, [sample(1), sample(2)], None)["snapshot"]
    table = pq.read_table(root.resolve(f"snapshots/{snapshot_id}.parquet")).drop_columns(
        ["geometry"]
    )
    rows = "".join(canonical_json(row) + "\n" for row in table.to_pylist())
    assert hashlib.sha256(rows.encode()).hexdigest()[:16] == snapshot_id
    pq.write_table(table, root.resolve(f"snapshots/{snapshot_id}.parquet"))
    manifest = json.loads(root.read(f"snapshots/{snapshot_id}.json"))
    assert manifest["format"] == 2
    old = {name: manifest[name] for name in ("snapshot", "created", "where", "samples", "bytes")}
    root.write(f"snapshots/{snapshot_id}.json", json.dumps(old | {"format": 1}).encode())
    assert [item.geometry for item in open_snapshot(root, snapshot_id).samples] == [None, None]


def test_a_later_format_is_an_error(root: Storage):
    snapshot_id = write_snapshot(root, [sample(1)], None)["snapshot"]
    manifest = json.loads(root.read(f"snapshots/{snapshot_id}.json"))
    root.write(f"snapshots/{snapshot_id}.json", json.dumps(manifest | {"format": 3}).encode())
    with pytest.raises(BadInput, match="update the software"):
        open_snapshot(root, snapshot_id)


def test_the_page_describes_every_column_of_a_snapshot():
    page = open("docs/reference/dataset-format.md").read().partition("## A snapshot")[2]
    missing = [name for name in SCHEMA.names if f"`{name}`" not in page]
    assert missing == []
