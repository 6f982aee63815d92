"""Datasets in stored formats: format 2 is still read, and other versions are refused.

tests/support/format-2 was built from objects of the demo source with seven views at 16 pixels
(`--rig zero123plus --render.resolution 16 --geometry true --surface.points 50`). It is never
written again: a change that breaks these tests needs a new format version
(docs/reference/dataset-format.md).
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from core.errors import BadInput
from core.storage import Storage
from dataset.catalog.event_columns import EVENT_SCHEMA
from dataset.catalog.event_log import Catalog
from dataset.format.geometry import read_geometry
from dataset.format.shards import (
    INDEX_SCHEMA,
    SampleEntry,
    index_path,
    read_index,
    read_members,
    scan_tar,
)
from dataset.root import FORMAT_VERSION, check_root, open_root
from dataset.snapshots.rows import SCHEMA, id_of_rows
from dataset.snapshots.snapshot import open_snapshot
from dataset.views import META_MEMBER, decode_views, encode_views
from tests.support.lrm import run_lrm
from tests.support.paths import REPOSITORY

FROZEN = REPOSITORY / "tests/support/format-2"
DECODED = FROZEN.with_suffix(".npz")
SNAPSHOT = "c26b684818772237"
SHARD = "shards/zero123plus/3296363a14ef1160.tar"
DIE = "objaverse:8c8ff0d7e056e3b2321036027b018b95"
MUG = "objaverse:adaed109b5b62d76bff6856d96d158f3"


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    """Return a copy of the frozen dataset, because commands may write to it."""
    shutil.copytree(FROZEN, tmp_path / "root")
    return open_root(str(tmp_path / "root"))


def test_the_catalog_can_be_read(root: Storage):
    history = Catalog(root).history(DIE)
    stages = "list fetch inspect measure render geometry pack".split()
    assert [record.event.stage for record in history] == stages
    assert {record.event.status for record in history} == {"ok"}
    data_by_stage = {record.event.stage: record.event.data for record in history}
    assert data_by_stage["list"]["caption"]
    assert len(data_by_stage["measure"]["coverage"]) == 7
    assert data_by_stage["pack"]["shard"] == SHARD
    assert sum(batch.num_rows for batch in Catalog(root).since(0)) == 21


def rows(entry: SampleEntry) -> list[tuple]:
    numbers = (entry.offsets, entry.sizes, entry.crc32)
    return [(entry.key, *row) for row in zip(entry.members, *numbers, strict=True)]


def test_a_shard_and_its_index_agree_with_the_catalog(root: Storage):
    entries, metadata = read_index(root, SHARD)
    tar = root.read(SHARD)
    assert metadata == {
        "shard_sha256": hashlib.sha256(tar).hexdigest(),
        "shard_bytes": str(len(tar)),
    }
    with root.open(SHARD) as file:
        scanned = list(scan_tar(file))
    assert [rows(entry) for entry in scanned] == [rows(entry) for entry in entries]
    pack = [r.event for r in Catalog(root).history(DIE) if r.event.stage == "pack"]
    assert pack[0].data["shard_sha256"] == metadata["shard_sha256"]


def test_samples_of_the_snapshot_decode_to_the_same_numbers(root: Storage):
    samples = open_snapshot(root, SNAPSHOT).samples
    assert [sample.asset_id for sample in samples] == [DIE, MUG]
    with np.load(DECODED) as expected:
        for name, array in decoded(root).items():
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-6, err_msg=name)
            assert array.dtype == expected[name].dtype


def decoded(root: Storage) -> dict[str, np.ndarray]:
    """Return all decoded arrays of the samples. format-2.npz holds the expected ones."""
    decoded_arrays = {}
    for sample in open_snapshot(root, SNAPSHOT).samples:
        members = read_members(root, sample.shard, sample.entry, sample.entry.members)
        views, meta = decode_views(members)
        assert meta["asset_id"] == sample.asset_id
        surface = read_geometry(root, sample.geometry)
        arrays = {
            "rgba": views.rgba,
            "depth": views.depth,
            "normals": views.normals,
            "camera_to_world": np.stack([camera.camera_to_world for camera in views.cameras]),
            "intrinsics": np.stack([camera.intrinsics for camera in views.cameras]),
            "points": surface.points,
            "point_normals": surface.normals,
            "vertices": surface.vertices,
            "faces": surface.faces,
        }
        decoded_arrays |= {f"{sample.entry.key}.{name}": array for name, array in arrays.items()}
    return decoded_arrays


def test_a_snapshot_keeps_its_id(root: Storage):
    table = pq.read_table(root.resolve(f"snapshots/{SNAPSHOT}.parquet"))
    assert id_of_rows(table) == SNAPSHOT


def test_commands_accept_the_dataset(root: Storage):
    status = run_lrm("status", "--root", root.uri, "--json").json()
    assert status["listed"] == 4
    # With another version of a stage, objects are pending instead of kept or dropped.
    assert (status["kept"], status["pending"]) in {(2, 0), (0, 2), (0, 3)}
    dropped, failed = (sum(status[name].values()) for name in ("dropped", "failed"))
    assert status["kept"] + status["pending"] + dropped + failed == 4
    verified = run_lrm("verify", "--root", root.uri)
    assert verified.code == 0, verified.out
    listed = run_lrm("snapshot", "--root", root.uri, "--list")
    assert listed.code == 0
    assert SNAPSHOT in listed.out


def test_current_schemas_equal_those_of_the_format(root: Storage):
    """An added column or field counts as a change of the format, too."""
    paths = {"snapshots": f"snapshots/{SNAPSHOT}.parquet", "index": index_path(SHARD)}
    schemas = {name: pq.read_schema(root.resolve(path)) for name, path in paths.items()}
    assert schemas["snapshots"].equals(SCHEMA)
    assert schemas["index"].equals(INDEX_SCHEMA)
    columns = DeltaTable(root.resolve("catalog")).to_pyarrow_dataset().schema
    assert columns.names == EVENT_SCHEMA.names
    (sample, *_) = open_snapshot(root, SNAPSHOT).samples
    members = read_members(root, sample.shard, sample.entry, sample.entry.members)
    views, meta = decode_views(members)
    encoded = dict(encode_views(views, meta))
    assert sorted(encoded) == sorted(members)
    stored_meta = json.loads(members[META_MEMBER])
    assert json.loads(encoded[META_MEMBER]).keys() == stored_meta.keys()
    assert json.loads(root.read("dataset.json")) == {"format": FORMAT_VERSION}


@pytest.mark.parametrize(
    ("version", "advice"),
    [(FORMAT_VERSION - 1, "build into an empty root"), (FORMAT_VERSION + 1, "update the software")],
)
def test_other_format_versions_are_refused_in_one_line(version: int, advice: str, tmp_path: Path):
    (tmp_path / "dataset.json").write_text(json.dumps({"format": version}))
    with pytest.raises(BadInput, match=rf"^[^\n]*dataset format {version} is [^\n]*{advice}$"):
        check_root(Storage(str(tmp_path)))
    for words in (["status"], ["verify"], ["snapshot"], ["retry", "--kind", "timeout"]):
        answer = run_lrm(*words, "--root", tmp_path)
        assert answer.code == 2
        assert answer.out == ""
        (line,) = answer.err.splitlines()
        assert line.endswith(advice)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]
