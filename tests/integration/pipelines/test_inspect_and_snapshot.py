"""`lrm inspect` on one object, and `lrm snapshot`."""

import json

import numpy as np
from PIL import Image

from core.failures import FailureKind
from dataset.format.shards import read_members
from dataset.root import open_root
from dataset.snapshots.snapshot import open_snapshot, split_of
from dataset.views import decode_views
from pipelines.building.dataset_status import load_dataset_state
from tests.support.lrm import run_lrm


def ids_by_state(built_dataset):
    ids = {}
    for state, decision in load_dataset_state(open_root(str(built_dataset.root))).with_decisions():
        ids.setdefault(decision.state, []).append(state.asset_id)
    return ids


def inspect(built_dataset, asset_id):
    return run_lrm("inspect", "--root", built_dataset.root, asset_id, "--json").json()


def test_inspect_shows_a_kept_object(built_dataset, tmp_path):
    sheet = tmp_path / "sheet.png"
    asset_id = ids_by_state(built_dataset)["kept"][0]
    words = ["inspect", "--root", built_dataset.root, asset_id]
    report = run_lrm(*words, "--sheet", sheet, "--json").json()
    assert report["asset_id"] == asset_id
    assert report["state"] == "kept"
    assert report["dropped"] == []
    assert report["failed"] is None
    stages = [event["stage"] for event in report["events"]]
    assert stages == ["list", "fetch", "inspect", "measure", "render", "pack"]
    assert len(report["measurements"]["measure"]["coverage"]) == 32
    assert report["samples"][0]["shard"].startswith("shards/lrm32/")
    picture = np.asarray(Image.open(sheet))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 500
    assert asset_id in run_lrm(*words).out


def test_a_failed_object_names_its_stage_its_kind_and_what_to_do(built_dataset):
    asset_id = ids_by_state(built_dataset)["failed"][0]
    failure = inspect(built_dataset, asset_id)["failed"]
    assert (failure["stage"], failure["kind"]) == ("fetch", "malformed")
    lines = run_lrm("inspect", "--root", built_dataset.root, asset_id).out.splitlines()
    assert lines[1] == f"  failed in fetch: malformed: {failure['message']}"
    assert lines[2] == f"  what to do: {FailureKind.MALFORMED.remedy}"


def test_a_dropped_object_names_filter_measurement_and_limit(built_dataset):
    reasons = {}
    for asset_id in ids_by_state(built_dataset)["dropped"]:
        report = inspect(built_dataset, asset_id)
        assert report["samples"] == []
        for verdict in report["dropped"]:
            assert set(verdict) == {"filter", "reason", "measured", "limit"}
            reasons[verdict["reason"]] = verdict
    occupancy = reasons["low_occupancy"]
    assert occupancy["limit"] == 0.1
    assert json.dumps(occupancy["measured"]) != "null"


def test_a_failed_object_names_kind_and_cause(built_dataset):
    (asset_id,) = ids_by_state(built_dataset)["failed"]
    failure = inspect(built_dataset, asset_id)["failed"]
    assert failure["kind"] == "malformed"
    assert failure["stage"] == "fetch"
    assert "log_tail" in failure
    assert len(failure["message"]) > 10
    assert "malformed" in run_lrm("inspect", "--root", built_dataset.root, asset_id).out


def test_two_snapshots_of_the_same_samples_have_one_id(built_dataset):
    first, second = (
        run_lrm("snapshot", "--root", built_dataset.root, "--json").json() for _ in range(2)
    )
    assert first["snapshot"] == second["snapshot"]
    assert first["samples"] == len(ids_by_state(built_dataset)["kept"])
    assert sum(first["licences"].values()) == first["samples"]


def test_every_sample_of_a_snapshot_can_be_read(built_dataset):
    manifest = run_lrm("snapshot", "--root", built_dataset.root, "--json").json()
    root = open_root(str(built_dataset.root))
    snapshot = open_snapshot(root, manifest["snapshot"])
    assert [sample.asset_id for sample in snapshot.samples] == ids_by_state(built_dataset)["kept"]
    for sample in snapshot.samples:
        members = read_members(root, sample.shard, sample.entry, sample.entry.members)
        views, meta = decode_views(members)
        assert meta["asset_id"] == sample.asset_id
        assert meta["sha256"] == sample.sha256
        assert len(views.cameras) == 32
        assert sample.caption


def test_where_selects_samples(built_dataset):
    kept = ids_by_state(built_dataset)["kept"]
    where = f"asset_id <> '{kept[0]}' AND licence IS NOT NULL"
    manifest = run_lrm("snapshot", "--root", built_dataset.root, "--where", where, "--json").json()
    chosen = open_snapshot(open_root(str(built_dataset.root)), manifest["snapshot"])
    assert [sample.asset_id for sample in chosen.samples] == kept[1:]


def test_where_cannot_read_files(built_dataset):
    where = "asset_id IN (SELECT content FROM read_text('/etc/passwd'))"
    answer = run_lrm("snapshot", "--root", built_dataset.root, "--where", where)
    assert answer.code == 2
    assert "root:" not in answer.err


def test_a_larger_validation_share_contains_the_smaller_one():
    ids = [f"objaverse:{i:032x}" for i in range(2000)]
    small, large = ({i for i in ids if split_of(i, share) == "validation"} for share in (0.05, 0.2))
    assert small < large
    assert 50 < len(small) < 150
    assert 320 < len(large) < 480
