"""A build from GLB files to shards, and repeated builds after changes."""

import csv
import gzip
import json
import shutil
import statistics
from collections import Counter
from pathlib import Path

import pytest
import webdataset

from core.errors import WorkFailed
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.root import open_root
from dataset.snapshots.snapshot import open_snapshot
from dataset.views import decode_views
from pipelines.building.build_config import BuildConfig
from pipelines.building.committer import Committer
from pipelines.building.dataset_status import load_dataset_state
from pipelines.building.object_table import latest_of
from pipelines.building.stages.fetch import SHA256
from pipelines.building.stages.pack import PACK, SAMPLE, SHARD
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import BuiltDataset, event_outcomes, events_of
from tests.support.lrm import run_lrm, spawn_lrm

REASONS = {"no_caption", "lowpoly_tag", "no_texture_map", "low_occupancy", "several_objects"}


def states(root: Path) -> Counter:
    dataset_state = load_dataset_state(open_root(str(root)))
    return Counter(decision.state for _, decision in dataset_state.with_decisions())


def test_every_filter_drops_something_and_something_is_kept(built_dataset: BuiltDataset):
    status = run_lrm("status", "--root", built_dataset.root, "--json").json()
    assert set(status["dropped"]) == REASONS
    assert status["failed"] == {"malformed": 1}
    assert status["kept"] >= 6
    assert status["pending"] == 0


def test_the_final_states_add_up_to_what_was_listed(built_dataset: BuiltDataset):
    status = run_lrm("status", "--root", built_dataset.root, "--json").json()
    listed = len(json.loads(gzip.open(built_dataset.source / "object-paths.json.gz").read()))
    parts = (status["kept"], *status["dropped"].values(), *status["failed"].values())
    assert sum(parts) + status["pending"] == status["listed"] == listed


def test_webdataset_reads_the_shards(built_dataset: BuiltDataset):
    shards = sorted(str(path) for path in built_dataset.root.glob("shards/lrm32/*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(samples) == states(built_dataset.root)["kept"]
    for sample in samples:
        views, meta = decode_views({k: v for k, v in sample.items() if not k.startswith("__")})
        assert views.rgba.shape == (32, 40, 40, 4)
        assert meta["asset_id"].startswith("objaverse:")
        assert meta["samples"] == 1
        assert (views.rgba[..., 3] > 127).mean() > 0.05


def test_all_shards_but_the_last_are_full(built_dataset: BuiltDataset):
    dataset_state = load_dataset_state(open_root(str(built_dataset.root)))
    sizes = Counter(state.get(SHARD) for state in dataset_state.kept)
    assert sorted(sizes.values(), reverse=True)[:-1] == [4] * (len(sizes) - 1)


def test_no_temporary_file_is_left(built_dataset: BuiltDataset):
    assert not list(built_dataset.root.glob("staging/*"))
    assert not [path for path in built_dataset.root.rglob("*") if ".tmp" in path.name]


def test_the_same_command_again_does_nothing(built_dataset: BuiltDataset):
    before = {path: path.stat().st_mtime_ns for path in built_dataset.root.rglob("*.tar")}
    events = len(events_of(built_dataset.root))
    plan = run_lrm("plan", *built_dataset.words, "--root", built_dataset.root, "--json").json()
    assert plan["work"] == {}
    again = run_lrm("build", *built_dataset.words, "--root", built_dataset.root, "--json").json()
    assert again == run_lrm("status", "--root", built_dataset.root, "--json").json()
    assert {path: path.stat().st_mtime_ns for path in built_dataset.root.rglob("*.tar")} == before
    assert len(events_of(built_dataset.root)) == events


def test_a_build_on_ray_writes_the_same_bytes(
    built_dataset: BuiltDataset, tmp_path: Path, monkeypatch
):
    """The command starts a local Ray cluster, in a process of its own."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    root = tmp_path / "ray"
    spawn_lrm("build", *built_dataset.words, "--root", root, "--address", "local", "--json").json()
    shards = sorted(
        path.relative_to(built_dataset.root) for path in built_dataset.root.glob("shards/*/*")
    )
    assert sorted(path.relative_to(root) for path in root.glob("shards/*/*")) == shards
    for shard in shards:
        assert (root / shard).read_bytes() == (built_dataset.root / shard).read_bytes(), shard
    assert event_outcomes(Storage(str(root))) == event_outcomes(Storage(str(built_dataset.root)))
    assert run_lrm("plan", *built_dataset.words, "--root", root, "--json").json()["work"] == {}
    assert list(root.glob("staging/*")) == []
    assert list(root.rglob("*.tmp*")) == []


@pytest.fixture
def copied(built_dataset: BuiltDataset, tmp_path: Path) -> BuiltDataset:
    """Return a copy of the dataset and its source, which a test may change."""
    copy = BuiltDataset(tmp_path / "root", tmp_path / "source")
    shutil.copytree(built_dataset.root, copy.root)
    shutil.copytree(built_dataset.source, copy.source)
    arguments = [*copy.words, "--root", str(copy.root), "--json"]
    run_lrm("build", *arguments).json()
    return copy


def plan_of(dataset: BuiltDataset, *words: str) -> dict:
    return run_lrm("plan", *dataset.words, *words, "--root", dataset.root, "--json").json()["work"]


def build(dataset: BuiltDataset, *words: str) -> dict:
    arguments = [*dataset.words, *words, "--root", dataset.root, "--json"]
    return run_lrm("build", *arguments).json()


def kept_ids(dataset: BuiltDataset) -> list[str]:
    dataset_state = load_dataset_state(open_root(str(dataset.root)))
    return [state.asset_id for state in dataset_state.kept]


def test_captions_drop_and_keep_objects_without_a_render(copied: BuiltDataset):
    captions = copied.source / CAPTIONS_FILE
    rows = list(csv.reader(captions.read_text().splitlines()))
    victim = kept_ids(copied)[0].partition(":")[2]
    _write(captions, [row for row in rows if row[0] != victim])
    assert plan_of(copied) == {}
    status = build(copied)
    assert status["dropped"]["no_caption"] == 2
    _write(captions, rows)
    assert plan_of(copied) == {}
    assert build(copied)["dropped"]["no_caption"] == 1
    assert f"objaverse:{victim}" in kept_ids(copied)


def test_changed_bytes_repeat_the_work_of_one_object(copied: BuiltDataset):
    victim, other = (asset_id.partition(":")[2] for asset_id in kept_ids(copied)[:2])
    before = sample_of(copied, victim)
    paths = {path.stem: path for path in copied.source.glob("glbs/*/*.glb")}
    paths[victim].write_bytes(paths[other].read_bytes())
    assert plan_of(copied) == {"fetch": {"file changed": 1}}
    build(copied)
    assert plan_of(copied) == {}
    assert sample_of(copied, victim) != before
    assert sample_of(copied, other)[1] == sample_of(copied, victim)[1]


def test_two_objects_with_the_same_bytes_have_different_views(copied: BuiltDataset):
    """Cameras depend on the id, so equal files give two samples."""
    victim, other = (asset_id.partition(":")[2] for asset_id in kept_ids(copied)[:2])
    paths = {path.stem: path for path in copied.source.glob("glbs/*/*.glb")}
    paths[victim].write_bytes(paths[other].read_bytes())
    assert build(copied)["kept"] == len(kept_ids(copied))
    snapshot = run_lrm("snapshot", "--root", copied.root, "--json").json()["snapshot"]
    samples = open_snapshot(open_root(str(copied.root)), snapshot).samples
    pair = [sample for sample in samples if sample.asset_id.endswith((victim, other))]
    assert pair[0].sha256 == pair[1].sha256
    assert pair[0].render_key != pair[1].render_key
    assert {sample.entry.key for sample in pair} == {f"objaverse-{victim}", f"objaverse-{other}"}


WITHIN_OTHERS = ("sync", "sample", "denoise", "read", "encode")
"""Timings that overlap others: parts of `colour`, and work of the worker during the render."""


@pytest.mark.parametrize("stage", ["measure", "render"])
def test_the_time_of_an_object_is_accounted_for(built_dataset: BuiltDataset, stage: str):
    """The sum of the timings equals the event's seconds.

    The median over the objects is compared, because a busy machine may pause some workers.
    """
    unaccounted = []
    kept = set(kept_ids(built_dataset))
    for event in events_of(built_dataset.root):
        if event["stage"] != stage or event["asset_id"] not in kept:
            continue
        timings = json.loads(event["data"])["timings"]
        assert all(seconds >= 0 for seconds in timings.values())
        accounted = sum(seconds for part, seconds in timings.items() if part not in WITHIN_OTHERS)
        assert accounted < event["seconds"] + 0.02
        unaccounted.append(event["seconds"] - accounted)
        if stage == "render":
            assert (
                timings["sync"] + timings["sample"] + timings["denoise"] < timings["colour"] + 0.05
            )
    assert len(unaccounted) >= 6
    assert statistics.median(unaccounted) < 0.05, unaccounted


def test_status_sums_the_timings_of_a_stage(built_dataset: BuiltDataset):
    status = run_lrm("status", "--root", str(built_dataset.root), "--json").json()
    parts = {stage: set(status["stages"][stage]["parts"]) for stage in ("measure", "render")}
    opening = {"bring", "start", "import", "evaluate"}
    assert parts["measure"] == opening | {"measure", "islands"}
    assert parts["render"] >= {*WITHIN_OTHERS, "prepare", "geometry", "colour", "handover", "check"}


def test_a_touched_file_with_the_same_bytes_is_read_but_not_rendered(copied: BuiltDataset):
    victim = kept_ids(copied)[0].partition(":")[2]
    before = sample_of(copied, victim)
    next(copied.source.glob(f"glbs/*/{victim}.glb")).touch()
    build(copied)
    assert sample_of(copied, victim) == before


def test_a_changed_threshold_renders_nothing(copied: BuiltDataset):
    words = ["--filters.occupancy.min-share", "0.99"]
    assert plan_of(copied, *words) == {}
    status = build(copied, *words)
    assert status["kept"] == 0
    assert status["stages"]["render"]["done"] >= 6


def test_another_resolution_renders_every_kept_object_again(copied: BuiltDataset):
    kept = len(kept_ids(copied))
    assert plan_of(copied, "--render.resolution", "24") == {
        "render": {"configuration changed": kept}
    }


def test_a_vanished_object_is_no_longer_listed(copied: BuiltDataset):
    paths = copied.source / "object-paths.json.gz"
    listed = json.loads(gzip.open(paths).read())
    victim = kept_ids(copied)[0].partition(":")[2]
    del listed[victim]
    paths.write_bytes(gzip.compress(json.dumps(listed).encode()))
    status = build(copied)
    assert status["listed"] == len(listed)
    assert f"objaverse:{victim}" not in kept_ids(copied)


def test_a_limit_keeps_the_results_of_the_other_objects(copied: BuiltDataset):
    before = run_lrm("status", "--root", copied.root, "--json").json()
    assert build(copied, "--limit", "2") == before


def sample_of(dataset: BuiltDataset, uid: str) -> tuple[dict, str]:
    dataset_state = load_dataset_state(open_root(str(dataset.root)))
    state = dataset_state.objects.state(dataset_state.objects.find(f"objaverse:{uid}"))
    packed = {column.name: state.get(column) for column in (SHARD, SAMPLE, PACK.events.content)}
    return packed, state.get(SHA256)


def _write(captions: Path, rows: list[list[str]]) -> None:
    with open(captions, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def test_status_compares_the_measured_cost_with_the_estimate(built_dataset):
    status = run_lrm("status", "--root", str(built_dataset.root), "--json").json()
    cost = status["cost"]
    assert cost["ended"] is True
    assert cost["error"]["core_hours"] is not None
    assert cost["expected"]["stages"]["fetch"]["objects"] >= status["stages"]["fetch"]["done"]
    for stage in ("fetch", "render", "pack"):
        stage_status, measured = status["stages"][stage], cost["took"]["stages"][stage]
        assert measured["objects"] >= stage_status["done"] > 0
    assert cost["took"]["bytes"] == status["bytes"]["samples"]
    threads = json.loads((built_dataset.root / "build.json").read_text())["config"]["blender"][
        "threads"
    ]
    hours = threads * status["stages"]["render"]["seconds"] / 3600
    assert cost["took"]["stages"]["render"]["core_hours"] == pytest.approx(hours, abs=2e-4)


def test_a_committer_that_lost_the_lock_commits_nothing(tmp_path: Path):
    def check_lock():
        if lock_lost:
            raise WorkFailed("the lock is another's")

    lock_lost = False
    root = Storage(str(tmp_path))
    catalog = Catalog(root)
    config = BuildConfig(source="/glbs", root=str(tmp_path))
    committer = Committer(catalog, latest_of(root, catalog), config.execution, check_lock)
    committer.add([Event(asset_id="a:1", stage="fetch")])
    committer.flush()
    version, lock_lost = catalog.last_seq(), True
    for commit in (committer.flush, committer.close):
        committer.add([Event(asset_id="a:2", stage="fetch")])
        with pytest.raises(WorkFailed, match="another's"):
            commit()
    assert catalog.last_seq() == version
