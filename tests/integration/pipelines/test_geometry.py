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
from tests.support.datasets import Built, events_of
from tests.support.lrm import run_lrm

ON = ["--geometry", "--surface.points", "5000"]


@dataclass(frozen=True)
class Completed:
    """A dataset before and after its geometry was asked for."""

    dataset: Built
    plan: dict
    """What `lrm plan` said before."""
    status: tuple[dict, dict]
    snapshot: tuple[Snapshot, Snapshot]
    work: tuple[Counter, Counter]
    """Events per stage."""
    shards: tuple[dict, dict]
    """When each file below shards/ was written."""


def lrm(dataset: Built, command: str, *words: str) -> dict:
    return run_lrm(command, *dataset.words, *words, "--root", dataset.root, "--json").json()


def snapshot_of(dataset: Built, *words: str) -> Snapshot:
    made = run_lrm("snapshot", "--root", dataset.root, *words, "--json").json()
    return open_snapshot(open_root(str(dataset.root)), made["snapshot"])


def work_done(dataset: Built) -> Counter:
    return Counter(event["stage"] for event in events_of(dataset.root))


def written(dataset: Built) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in dataset.root.glob("shards/*/*")}


@pytest.fixture(scope="module")
def completed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Completed:
    dataset = Built(tmp_path_factory.mktemp("geometry") / "root", built.source)
    shutil.copytree(built.root, dataset.root)
    status = run_lrm("status", "--root", dataset.root, "--json").json()
    snapshot, work, shards = snapshot_of(dataset), work_done(dataset), written(dataset)
    # As if the last build had been killed before it removed what it had packed.
    leftover = dataset.root / f"staging/{snapshot.samples[0].render_key}.tar"
    leftover.parent.mkdir(exist_ok=True)
    leftover.write_bytes(b"")
    plan = lrm(dataset, "plan", *ON)
    after = lrm(dataset, "build", *ON)
    return Completed(
        dataset=dataset,
        plan=plan,
        status=(status, after),
        snapshot=(snapshot, snapshot_of(dataset)),
        work=(work, work_done(dataset)),
        shards=(shards, written(dataset)),
    )


def test_the_plan_says_what_is_missing(completed: Completed):
    assert completed.plan["work"] == {"geometry": {"new": completed.status[0]["kept"]}}
    assert completed.plan["estimate"]["bytes"] > 0


def test_nothing_is_rendered_or_packed_again(completed: Completed):
    before, after = completed.work
    assert after - before == {"geometry": completed.status[0]["kept"]}
    assert all(before[stage] for stage in ("measure", "render", "pack"))
    assert completed.shards[0] == completed.shards[1]
    assert not list(completed.dataset.root.glob("staging/*"))


def test_the_funnel_stays_as_it_was(completed: Completed):
    before, after = completed.status
    counts = ("listed", "kept", "dropped", "failed", "pending", "unsure", "rig")
    assert {name: before[name] for name in counts} == {name: after[name] for name in counts}
    assert after["stages"]["geometry"]["done"] == after["kept"]
    assert after["bytes"]["geometry"] > 10_000 * after["kept"]
    assert "geometry" not in before["stages"]


def test_every_sample_of_the_snapshot_names_its_geometry(completed: Completed):
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


def test_the_same_command_again_does_nothing(completed: Completed):
    assert lrm(completed.dataset, "plan", *ON)["work"] == {}
    assert lrm(completed.dataset, "plan")["work"] == {}
    assert lrm(completed.dataset, "plan", "--geometry", "false")["work"] == {}


def test_other_points_are_other_files(completed: Completed):
    more = lrm(completed.dataset, "plan", "--geometry", "--surface.points", "6000")
    assert more["work"] == {"geometry": {"configuration changed": completed.status[0]["kept"]}}


def test_an_object_tells_of_its_geometry(completed: Completed):
    root = open_root(str(completed.dataset.root))
    sample = completed.snapshot[1].samples[0]
    words = ["inspect", "--root", completed.dataset.root, sample.asset_id, "--json"]
    found = run_lrm(*words).json()
    assert found["samples"][0]["geometry"] == sample.geometry
    event = found["events"][-1]
    assert (event["stage"], event["rig"]) == ("geometry", "cube")
    surface = read_geometry(root, sample.geometry)
    assert event["data"]["path"] == sample.geometry
    assert event["data"]["bytes"] == root.size(sample.geometry)
    assert event["data"]["num_points"] == len(surface.points)
    assert event["data"]["num_vertices"] == len(surface.vertices)
    assert event["data"]["num_faces"] == len(surface.faces)
    assert event["seconds"] > 0


def test_an_object_without_the_geometry_that_was_asked_for_failed(
    completed: Completed, tmp_path: Path
):
    """More points than the child may take time for."""
    dataset = Built(tmp_path / "root", completed.dataset.source)
    shutil.copytree(completed.dataset.root, dataset.root)
    before = load_dataset_state(open_root(str(dataset.root)))
    kept = {state.asset_id for state in before.kept}
    rows = before.objects.table.select(["list.part", "asset_id"]).to_pylist()
    order = [asset_id for _, asset_id in sorted(tuple(row.values()) for row in rows)]
    asset_id = next(asset_id for asset_id in order if asset_id in kept)
    limit = str(order.index(asset_id) + 1)
    wanted = ["--geometry", "--surface.points", "5000000", "--limit", limit]
    status = lrm(dataset, "build", *wanted, "--blender.measure-seconds", "0.000001")
    assert status["failed"]["timeout"] == 1
    after = load_dataset_state(open_root(str(dataset.root)))
    failed = after.decisions.at(after.objects.find(asset_id))
    assert (failed.state, failed.failure.stage.name) == ("failed", "geometry")
    # Without the switch it is kept as before; with more time it may be tried again.
    assert lrm(dataset, "plan")["work"] == {}
    assert lrm(dataset, "plan", *wanted)["work"] == {"geometry": {"limits changed": 1}}
