"""`--geometry` on a finished dataset: a companion file per kept object, and no other work."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dataset.format.geometry import read_geometry
from dataset.root import open_root
from dataset.snapshots.snapshot import Snapshot, open_snapshot
from pipelines.building.dataset_status import load_dataset_state
from tests.support.datasets import BuiltDataset, events_of
from tests.support.lrm import run_lrm

GEOMETRY = ["--geometry", "--surface.points", "5000"]


@dataclass(frozen=True)
class GeometryBuild:
    """A dataset before and after a build with --geometry."""

    dataset: BuiltDataset
    plan: dict
    """Output of `lrm plan --json` before the build."""
    status: tuple[dict, dict]
    snapshot: tuple[Snapshot, Snapshot]
    work: tuple[Counter, Counter]
    """Number of events per stage."""
    shards: tuple[dict, dict]
    """Modification time of each file below shards/, in nanoseconds."""


def lrm(dataset: BuiltDataset, command: str, *words: str) -> dict:
    return run_lrm(command, *dataset.words, *words, "--root", dataset.root, "--json").json()


def snapshot_of(dataset: BuiltDataset, *words: str) -> Snapshot:
    manifest = run_lrm("snapshot", "--root", dataset.root, *words, "--json").json()
    return open_snapshot(open_root(str(dataset.root)), manifest["snapshot"])


def events_per_stage(dataset: BuiltDataset) -> Counter:
    return Counter(event["stage"] for event in events_of(dataset.root))


def write_times(dataset: BuiltDataset) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in dataset.root.glob("shards/*/*")}


@pytest.fixture(scope="module")
def completed(
    built_dataset: BuiltDataset, tmp_path_factory: pytest.TempPathFactory
) -> GeometryBuild:
    dataset = BuiltDataset(tmp_path_factory.mktemp("geometry") / "root", built_dataset.source)
    shutil.copytree(built_dataset.root, dataset.root)
    status = run_lrm("status", "--root", dataset.root, "--json").json()
    snapshot, work, shards = snapshot_of(dataset), events_per_stage(dataset), write_times(dataset)
    # As after a build that was killed before it removed a packed sample from staging/.
    leftover = dataset.root / f"staging/{snapshot.samples[0].render_key}.tar"
    leftover.parent.mkdir(exist_ok=True)
    leftover.write_bytes(b"")
    plan = lrm(dataset, "plan", *GEOMETRY)
    after = lrm(dataset, "build", *GEOMETRY)
    return GeometryBuild(
        dataset=dataset,
        plan=plan,
        status=(status, after),
        snapshot=(snapshot, snapshot_of(dataset)),
        work=(work, events_per_stage(dataset)),
        shards=(shards, write_times(dataset)),
    )


def test_the_plan_lists_the_missing_geometry(completed: GeometryBuild):
    assert completed.plan["work"] == {"geometry": {"new": completed.status[0]["kept"]}}
    assert completed.plan["estimate"]["bytes"] > 0


def test_nothing_is_rendered_or_packed_again(completed: GeometryBuild):
    before, after = completed.work
    assert after - before == {"geometry": completed.status[0]["kept"]}
    assert all(before[stage] for stage in ("measure", "render", "pack"))
    assert completed.shards[0] == completed.shards[1]
    assert not list(completed.dataset.root.glob("staging/*"))


def test_the_counts_of_objects_do_not_change(completed: GeometryBuild):
    before, after = completed.status
    counts = ("listed", "kept", "dropped", "failed", "pending", "unsure", "rig")
    assert {name: before[name] for name in counts} == {name: after[name] for name in counts}
    assert after["stages"]["geometry"]["done"] == after["kept"]
    assert after["bytes"]["geometry"] > 10_000 * after["kept"]
    assert "geometry" not in before["stages"]


def test_every_sample_of_the_snapshot_names_its_geometry(completed: GeometryBuild):
    root = open_root(str(completed.dataset.root))
    plain, full = completed.snapshot
    assert plain.snapshot_id != full.snapshot_id
    assert {sample.geometry for sample in plain.samples} == {None}
    assert [sample.entry for sample in plain.samples] == [sample.entry for sample in full.samples]
    for sample in full.samples:
        surface = read_geometry(root, sample.geometry)
        assert surface.points.shape == (5000, 3)
        # The longest side of the bounding box is 2, around the origin.
        low, high = surface.vertices.min(axis=0), surface.vertices.max(axis=0)
        np.testing.assert_allclose(low, -high, atol=1e-5)
        assert high.max() == pytest.approx(1, abs=1e-5)
    assert len(list(completed.dataset.root.glob("geometry/cube/*/*.npz"))) == len(full.samples)


def test_the_same_command_again_does_nothing(completed: GeometryBuild):
    assert lrm(completed.dataset, "plan", *GEOMETRY)["work"] == {}
    assert lrm(completed.dataset, "plan")["work"] == {}
    assert lrm(completed.dataset, "plan", "--geometry", "false")["work"] == {}


def test_another_number_of_points_repeats_the_geometry(completed: GeometryBuild):
    more = lrm(completed.dataset, "plan", "--geometry", "--surface.points", "6000")
    assert more["work"] == {"geometry": {"configuration changed": completed.status[0]["kept"]}}


def test_inspect_shows_the_geometry_of_an_object(completed: GeometryBuild):
    root = open_root(str(completed.dataset.root))
    sample = completed.snapshot[1].samples[0]
    words = ["inspect", "--root", completed.dataset.root, sample.asset_id, "--json"]
    report = run_lrm(*words).json()
    assert report["samples"][0]["geometry"] == sample.geometry
    event = report["events"][-1]
    assert (event["stage"], event["rig"]) == ("geometry", "cube")
    surface = read_geometry(root, sample.geometry)
    assert event["data"]["path"] == sample.geometry
    assert event["data"]["bytes"] == root.size(sample.geometry)
    assert event["data"]["num_points"] == len(surface.points)
    assert event["data"]["num_vertices"] == len(surface.vertices)
    assert event["data"]["num_faces"] == len(surface.faces)
    assert event["seconds"] > 0


def test_an_object_whose_geometry_times_out_counts_as_failed(
    completed: GeometryBuild, tmp_path: Path
):
    """The child has too little time for this number of points."""
    dataset = BuiltDataset(tmp_path / "root", completed.dataset.source)
    shutil.copytree(completed.dataset.root, dataset.root)
    before = load_dataset_state(open_root(str(dataset.root)))
    kept = {state.asset_id for state in before.kept}
    rows = before.objects.table.select(["list.part", "asset_id"]).to_pylist()
    listed_order = [asset_id for _, asset_id in sorted(tuple(row.values()) for row in rows)]
    asset_id = next(asset_id for asset_id in listed_order if asset_id in kept)
    limit = str(listed_order.index(asset_id) + 1)
    options = ["--geometry", "--surface.points", "5000000", "--limit", limit]
    status = lrm(dataset, "build", *options, "--blender.measure-seconds", "0.000001")
    assert status["failed"]["timeout"] == 1
    after = load_dataset_state(open_root(str(dataset.root)))
    failed = after.decisions.at(after.objects.find(asset_id))
    assert (failed.state, failed.failure.stage) == ("failed", "geometry")
    # Without geometry it is kept as before; with a higher limit it is retried.
    assert lrm(dataset, "plan", "--no-geometry")["work"] == {}
    assert lrm(dataset, "plan", *options)["work"] == {"geometry": {"limits changed": 1}}
