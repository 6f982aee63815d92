"""Datasets of other versions: format 2 as it was written once, and what is refused.

tests/support/format-2 was built from objects of the demo source with seven views at 16 pixels
(`--rig zero123plus --render.resolution 16 --geometry true --surface.points 50`) and is never made
anew: a change that it does not survive is a new format (docs/reference/dataset-format.md).
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
from dataset.catalog import event_log as catalog
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
from dataset.snapshots.snapshot import SCHEMA, _digest, open_snapshot
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
    """A copy: commands may write beside what they read."""
    shutil.copytree(FROZEN, tmp_path / "root")
    return open_root(str(tmp_path / "root"))


def test_the_catalog_is_read(root: Storage):
    history = Catalog(root).history(DIE)
    stages = "list fetch inspect measure render geometry pack".split()
    assert [record.event.stage for record in history] == stages
    assert {record.event.status for record in history} == {"ok"}
    found = {record.event.stage: record.event.data for record in history}
    assert found["list"]["caption"]
    assert len(found["measure"]["coverage"]) == 7
    assert found["pack"]["shard"] == SHARD
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
    with np.load(DECODED) as frozen:
        for name, array in decoded(root).items():
            np.testing.assert_allclose(array, frozen[name], rtol=0, atol=1e-6, err_msg=name)
            assert array.dtype == frozen[name].dtype


def decoded(root: Storage) -> dict[str, np.ndarray]:
    """Everything that a reader gets of the samples; format-2.npz is this, saved once."""
    found = {}
    for sample in open_snapshot(root, SNAPSHOT).samples:
        members = read_members(root, sample.shard, sample.entry, sample.entry.members)
        views, meta = decode_views(members)
        assert meta["asset_id"] == sample.asset_id
        surface = read_geometry(root, sample.geometry)
        arrays = {
            "rgba": views.rgba,
            "depth": views.depth,
            "normals": views.normals,
            "camera_to_world": np.stack([each.camera_to_world for each in views.cameras]),
            "intrinsics": np.stack([each.intrinsics for each in views.cameras]),
            "points": surface.points,
            "point_normals": surface.normals,
            "vertices": surface.vertices,
            "faces": surface.faces,
        }
        found |= {f"{sample.entry.key}.{name}": array for name, array in arrays.items()}
    return found


def test_a_snapshot_keeps_its_id(root: Storage):
    table = pq.read_table(root.resolve(f"snapshots/{SNAPSHOT}.parquet"))
    assert _digest(table) == SNAPSHOT


def test_commands_take_it(root: Storage):
    status = run_lrm("status", "--root", root.uri, "--json").json()
    assert status["listed"] == 4
    # Where the renderer has another version, they wait to be rendered.
    assert status["kept"] + status["pending"] == 2
    verified = run_lrm("verify", "--root", root.uri)
    assert verified.code == 0, verified.out
    listed = run_lrm("snapshot", "--root", root.uri, "--list")
    assert listed.code == 0
    assert SNAPSHOT in listed.out


def test_what_is_written_now_has_the_same_columns_and_fields(root: Storage):
    """Also what readers would not miss, such as a new column, is a change."""
    paths = {"snapshots": f"snapshots/{SNAPSHOT}.parquet", "index": index_path(SHARD)}
    found = {name: pq.read_schema(root.resolve(path)) for name, path in paths.items()}
    assert found["snapshots"].equals(SCHEMA)
    assert found["index"].equals(INDEX_SCHEMA)
    columns = DeltaTable(root.resolve("catalog")).to_pyarrow_dataset().schema
    assert columns.names == catalog._SCHEMA.names
    (sample, *_) = open_snapshot(root, SNAPSHOT).samples
    members = read_members(root, sample.shard, sample.entry, sample.entry.members)
    views, meta = decode_views(members)
    again = dict(encode_views(views, meta))
    assert sorted(again) == sorted(members)
    frozen = json.loads(members[META_MEMBER])
    assert json.loads(again[META_MEMBER]).keys() == frozen.keys()
    assert json.loads(root.read("dataset.json")) == {"format": FORMAT_VERSION}


@pytest.mark.parametrize(
    ("version", "advice"),
    [(FORMAT_VERSION - 1, "build into an empty root"), (FORMAT_VERSION + 1, "update the software")],
)
def test_another_version_is_refused_in_one_line(version: int, advice: str, tmp_path: Path):
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
