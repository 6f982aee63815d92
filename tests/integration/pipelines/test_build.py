"""A build from GLB files to shards, and what happens when it is run again."""

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
from pipelines.building.dataset_status import load_standing
from pipelines.building.object_table import latest_of
from pipelines.building.stages.fetch import SHA256
from pipelines.building.stages.pack import PACK, SAMPLE, SHARD
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import Built, ends, events_of
from tests.support.lrm import run_lrm, spawn_lrm

REASONS = {"no_caption", "lowpoly_tag", "no_texture_map", "low_occupancy", "several_objects"}


def states(root: Path) -> Counter:
    standing = load_standing(open_root(str(root)))
    return Counter(decision.state for _, decision in standing.with_decisions())


def test_every_filter_drops_something_and_something_is_kept(built: Built):
    status = run_lrm("status", "--root", built.root, "--json").json()
    assert set(status["dropped"]) == REASONS
    assert status["failed"] == {"malformed": 1}
    assert status["kept"] >= 6
    assert status["pending"] == 0


def test_the_final_states_add_up_to_what_was_listed(built: Built):
    status = run_lrm("status", "--root", built.root, "--json").json()
    listed = len(json.loads(gzip.open(built.source / "object-paths.json.gz").read()))
    parts = (status["kept"], *status["dropped"].values(), *status["failed"].values())
    assert sum(parts) + status["pending"] == status["listed"] == listed


def test_any_webdataset_reader_opens_the_shards(built: Built):
    shards = sorted(str(path) for path in built.root.glob("shards/lrm32/*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(samples) == states(built.root)["kept"]
    for sample in samples:
        views, meta = decode_views({k: v for k, v in sample.items() if not k.startswith("__")})
        assert views.rgba.shape == (32, 40, 40, 4)
        assert meta["asset_id"].startswith("objaverse:")
        assert meta["samples"] == 1
        assert (views.rgba[..., 3] > 127).mean() > 0.05


def test_shards_are_full_but_for_the_last(built: Built):
    standing = load_standing(open_root(str(built.root)))
    sizes = Counter(state.get(SHARD) for state in standing.kept)
    assert sorted(sizes.values(), reverse=True)[:-1] == [4] * (len(sizes) - 1)


def test_nothing_temporary_is_left(built: Built):
    assert not list(built.root.glob("staging/*"))
    assert not [path for path in built.root.rglob("*") if ".tmp" in path.name]


def test_the_same_command_again_does_nothing(built: Built):
    before = {path: path.stat().st_mtime_ns for path in built.root.rglob("*.tar")}
    events = len(events_of(built.root))
    plan = run_lrm("plan", *built.words, "--root", built.root, "--json").json()
    assert plan["work"] == {}
    again = run_lrm("build", *built.words, "--root", built.root, "--json").json()
    assert again == run_lrm("status", "--root", built.root, "--json").json()
    assert {path: path.stat().st_mtime_ns for path in built.root.rglob("*.tar")} == before
    assert len(events_of(built.root)) == events


def test_on_ray_the_shards_are_the_same_bytes(built: Built, tmp_path: Path, monkeypatch):
    """With a Ray that the command starts by itself, in a process of its own."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    root = tmp_path / "ray"
    spawn_lrm("build", *built.words, "--root", root, "--address", "local", "--json").json()
    shards = sorted(path.relative_to(built.root) for path in built.root.glob("shards/*/*"))
    assert sorted(path.relative_to(root) for path in root.glob("shards/*/*")) == shards
    for shard in shards:
        assert (root / shard).read_bytes() == (built.root / shard).read_bytes(), shard
    assert ends(Storage(str(root))) == ends(Storage(str(built.root)))
    assert run_lrm("plan", *built.words, "--root", root, "--json").json()["work"] == {}
    assert list(root.glob("staging/*")) == []
    assert list(root.rglob("*.tmp*")) == []


@pytest.fixture
def copied(built: Built, tmp_path: Path) -> Built:
    """A dataset and a source that a test may change."""
    copy = Built(tmp_path / "root", tmp_path / "source")
    shutil.copytree(built.root, copy.root)
    shutil.copytree(built.source, copy.source)
    here = [*copy.words, "--root", str(copy.root), "--json"]
    run_lrm("build", *here).json()
    return copy


def plan_of(dataset: Built, *words: str) -> dict:
    return run_lrm("plan", *dataset.words, *words, "--root", dataset.root, "--json").json()["work"]


def build(dataset: Built, *words: str) -> dict:
    here = [*dataset.words, *words, "--root", dataset.root, "--json"]
    return run_lrm("build", *here).json()


def kept_ids(dataset: Built) -> list[str]:
    standing = load_standing(open_root(str(dataset.root)))
    return [state.asset_id for state in standing.kept]


def test_a_lost_caption_drops_and_a_new_one_keeps_without_a_render(copied: Built):
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


def test_changed_bytes_redo_one_object(copied: Built):
    victim, other = (asset_id.partition(":")[2] for asset_id in kept_ids(copied)[:2])
    before = sample_of(copied, victim)
    paths = {path.stem: path for path in copied.source.glob("glbs/*/*.glb")}
    paths[victim].write_bytes(paths[other].read_bytes())
    assert plan_of(copied) == {"fetch": {"file changed": 1}}
    build(copied)
    assert plan_of(copied) == {}
    assert sample_of(copied, victim) != before
    assert sample_of(copied, other)[1] == sample_of(copied, victim)[1]


def test_two_objects_with_the_same_bytes_have_views_of_their_own(copied: Built):
    """The cameras follow from the id, so equal files are still two samples."""
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
"""Parts of `colour`, and what the worker does meanwhile."""


@pytest.mark.parametrize("stage", ["measure", "render"])
def test_the_time_of_an_object_is_accounted_for(built: Built, stage: str):
    """The parts one after the other make up an event's seconds; nothing lies between them.

    The median over the objects: a busy machine may stop a worker between two clocks, but not most.
    """
    missing = []
    kept = set(kept_ids(built))
    for event in events_of(built.root):
        if event["stage"] != stage or event["asset_id"] not in kept:
            continue
        spent = json.loads(event["data"])["timings"]
        assert all(seconds >= 0 for seconds in spent.values())
        named = sum(seconds for part, seconds in spent.items() if part not in WITHIN_OTHERS)
        assert named < event["seconds"] + 0.02
        missing.append(event["seconds"] - named)
        if stage == "render":
            assert spent["sync"] + spent["sample"] + spent["denoise"] < spent["colour"] + 0.05
    assert len(missing) >= 6
    assert statistics.median(missing) < 0.05, missing


def test_the_sums_of_the_parts_are_in_the_status(built: Built):
    status = run_lrm("status", "--root", str(built.root), "--json").json()
    parts = {stage: set(status["stages"][stage]["parts"]) for stage in ("measure", "render")}
    opening = {"bring", "start", "import", "evaluate"}
    assert parts["measure"] == opening | {"measure", "islands"}
    assert parts["render"] >= {*WITHIN_OTHERS, "prepare", "geometry", "colour", "handover", "check"}


def test_a_touched_file_with_the_same_bytes_is_read_but_not_rendered(copied: Built):
    victim = kept_ids(copied)[0].partition(":")[2]
    before = sample_of(copied, victim)
    next(copied.source.glob(f"glbs/*/{victim}.glb")).touch()
    build(copied)
    assert sample_of(copied, victim) == before


def test_a_changed_threshold_renders_nothing(copied: Built):
    words = ["--filters.occupancy.min-share", "0.99"]
    assert plan_of(copied, *words) == {}
    status = build(copied, *words)
    assert status["kept"] == 0
    assert status["stages"]["render"]["done"] >= 6


def test_another_resolution_renders_all_again(copied: Built):
    kept = len(kept_ids(copied))
    assert plan_of(copied, "--render.resolution", "24") == {
        "render": {"configuration changed": kept}
    }


def test_a_vanished_object_is_no_longer_listed(copied: Built):
    paths = copied.source / "object-paths.json.gz"
    listed = json.loads(gzip.open(paths).read())
    victim = kept_ids(copied)[0].partition(":")[2]
    del listed[victim]
    paths.write_bytes(gzip.compress(json.dumps(listed).encode()))
    status = build(copied)
    assert status["listed"] == len(listed)
    assert f"objaverse:{victim}" not in kept_ids(copied)


def test_a_limit_does_not_forget_the_others(copied: Built):
    before = run_lrm("status", "--root", copied.root, "--json").json()
    assert build(copied, "--limit", "2") == before


def sample_of(dataset: Built, uid: str) -> tuple[dict, str]:
    standing = load_standing(open_root(str(dataset.root)))
    state = standing.objects.state(standing.objects.find(f"objaverse:{uid}"))
    packed = {column.name: state.get(column) for column in (SHARD, SAMPLE, PACK.events.content)}
    return packed, state.get(SHA256)


def _write(captions: Path, rows: list[list[str]]) -> None:
    with open(captions, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def test_what_the_build_took_stands_beside_what_it_expected(built):
    status = run_lrm("status", "--root", str(built.root), "--json").json()
    cost = status["cost"]
    assert cost["ended"] is True
    assert cost["error"]["core_hours"] is not None
    assert cost["expected"]["stages"]["fetch"]["objects"] >= status["stages"]["fetch"]["done"]
    for stage in ("fetch", "render", "pack"):
        done, took = status["stages"][stage], cost["took"]["stages"][stage]
        assert took["objects"] >= done["done"] > 0
    assert cost["took"]["bytes"] == status["bytes"]["samples"]
    threads = json.loads((built.root / "build.json").read_text())["config"]["blender"]["threads"]
    hours = threads * status["stages"]["render"]["seconds"] / 3600
    assert cost["took"]["stages"]["render"]["core_hours"] == pytest.approx(hours, abs=2e-4)


def test_a_committer_that_lost_the_lock_commits_nothing(tmp_path: Path):
    def still_ours():
        if lost:
            raise WorkFailed("the lock is another's")

    lost = False
    root = Storage(str(tmp_path))
    catalog = Catalog(root)
    config = BuildConfig(source="/glbs", root=str(tmp_path))
    committer = Committer(catalog, latest_of(root, catalog), config.execution, still_ours)
    committer.add([Event(asset_id="a:1", stage="fetch")])
    committer.flush()
    version, lost = catalog.last_seq(), True
    for end in (committer.flush, committer.close):
        committer.add([Event(asset_id="a:2", stage="fetch")])
        with pytest.raises(WorkFailed, match="another's"):
            end()
    assert catalog.last_seq() == version
