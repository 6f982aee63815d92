"""A stage outside the project: after its registration, every command handles it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset.root import open_root
from pipelines.building.dataset_status import load_dataset_state
from pipelines.building.stages.registry import STAGES
from tests.support.datasets import BuiltDataset
from tests.support.lrm import run_lrm
from tests.support.voxel_stage import VOXELS

SMALL = ["--stages", "{voxels: {size: 4}}"]


@pytest.fixture(autouse=True, scope="module")
def added() -> Iterator[None]:
    STAGES.add(VOXELS)
    yield
    STAGES.remove(VOXELS)


@pytest.fixture(scope="module")
def dataset(built_dataset: BuiltDataset, tmp_path_factory: pytest.TempPathFactory) -> BuiltDataset:
    """Return a finished dataset that was built without the stage."""
    copy = BuiltDataset(tmp_path_factory.mktemp("voxels") / "root", built_dataset.source)
    shutil.copytree(built_dataset.root, copy.root)
    shutil.rmtree(copy.root / "snapshots", ignore_errors=True)
    return copy


@pytest.fixture(scope="module")
def completed(dataset: BuiltDataset, ray_address: str) -> dict[str, Any]:
    """Return the status after a build with the stage, on workers that start without it."""
    return lrm(dataset, "build", *SMALL, "--address", ray_address)


def lrm(dataset: BuiltDataset, command: str, *words: str) -> Any:
    sources = dataset.words if command in ("plan", "build") else []
    return run_lrm(command, *sources, "--root", dataset.root, *words, "--json").json()


def files(dataset: BuiltDataset) -> set[str]:
    return {path.name for path in dataset.root.glob("voxels/*.npz")}


def kept(dataset: BuiltDataset) -> list[str]:
    dataset_state = load_dataset_state(open_root(str(dataset.root)))
    return [state.asset_id for state in dataset_state.kept]


def test_without_the_stage_a_plan_is_empty(dataset: BuiltDataset):
    assert lrm(dataset, "plan")["work"] == {}


def test_the_plan_shows_its_work_and_cost(dataset: BuiltDataset):
    num = lrm(dataset, "status")["kept"]
    plan = lrm(dataset, "plan", *SMALL)
    assert plan["work"] == {"voxels": {"new": num}}
    expected = plan["estimate"]["stages"]
    assert expected["voxels"]["objects"] == num
    assert expected["voxels"]["bytes"] == 300 * num
    assert expected["voxels"]["core_hours"] > 0


def test_status_counts_its_objects_and_bytes(dataset: BuiltDataset, completed: dict[str, Any]):
    num = completed["kept"]
    assert completed["stages"]["voxels"]["done"] == num
    assert completed["stages"]["voxels"]["parts"]["import"] > 0
    sizes = {path.name: path.stat().st_size for path in dataset.root.glob("voxels/*.npz")}
    assert len(sizes) == num
    assert completed["bytes"]["voxels"] == sum(sizes.values())
    assert completed["cost"]["took"]["stages"]["voxels"]["bytes"] == sum(sizes.values())
    assert lrm(dataset, "plan", *SMALL)["work"] == {}


def test_inspect_shows_its_measurements_and_events(
    dataset: BuiltDataset, completed: dict[str, Any]
):
    report = lrm(dataset, "inspect", kept(dataset)[0])
    assert 0 < report["measurements"]["voxels"]["occupied"] <= 64
    assert [event["stage"] for event in report["events"]][-1] == "voxels"
    assert report["state"] == "kept"


def test_changed_settings_repeat_the_stage(dataset: BuiltDataset, completed: dict[str, Any]):
    plan = lrm(dataset, "plan", "--stages", "{voxels: {size: 5}}")
    assert plan["work"] == {"voxels": {"configuration changed": completed["kept"]}}
    assert lrm(dataset, "plan", "--stages", "{voxels: {size: 4}}")["work"] == {}
    # The stage depends on the normalisation, not on the cameras.
    plan_of_other_rig = lrm(dataset, "plan", *SMALL, "--rig", "orbit21")
    assert "voxels" not in plan_of_other_rig["work"]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("{voxel: {}}", "--stages: stage 'voxel' does not exist; did you mean 'voxels'?"),
        ("{voxels: {siz: 4}}", "--stages: voxels: unknown key 'siz' (did you mean 'size'?)"),
        ("{render: {}}", "--stages: stage 'render' does not exist; there are: voxels"),
    ],
)
def test_a_wrong_name_or_setting_gives_one_line_of_error(
    dataset: BuiltDataset, stages: str, message: str
):
    answer = run_lrm("plan", *dataset.words, "--root", dataset.root, "--stages", stages)
    assert answer.code == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1


def test_damage_to_its_file_is_found_and_repaired(dataset: BuiltDataset, completed: dict[str, Any]):
    victim = sorted(dataset.root.glob("voxels/*.npz"))[0]
    intact = victim.read_bytes()
    victim.write_bytes(intact[:40])
    answer = run_lrm("verify", "--root", dataset.root, "--json")
    assert answer.code == 1
    report = json.loads(answer.out)
    assert report["voxels"] == completed["kept"]
    assert len(report["damaged"]) == 1
    assert "with --stages" in report["findings"][0]["remedy"]
    assert lrm(dataset, "status")["failed"]["sample_damaged"] == 1
    assert lrm(dataset, "plan", *SMALL)["work"] == {"voxels": {"retry": 1}}
    lrm(dataset, "build", *SMALL)
    assert victim.read_bytes() == intact
    assert run_lrm("verify", "--root", dataset.root).code == 0


def test_its_failures_count_and_can_be_retried(dataset: BuiltDataset, completed: dict[str, Any]):
    tight = ["--stages", "{voxels: {size: 4, max_occupied: 1}}"]
    status = lrm(dataset, "build", *tight)
    assert status["failed"] == completed["failed"] | {"too_large": completed["kept"]}
    assert lrm(dataset, "plan", *tight)["work"] == {}
    retried = lrm(dataset, "retry", "--kind", "too_large")["cleared"]
    assert len(retried) == completed["kept"]
    assert lrm(dataset, "plan", *tight)["work"] == {"voxels": {"retry": completed["kept"]}}
    assert lrm(dataset, "build", *SMALL)["failed"] == completed["failed"]


def test_a_changed_object_gets_a_new_grid_and_the_old_one_is_deleted(
    dataset: BuiltDataset, completed: dict[str, Any], tmp_path: Path
):
    source = BuiltDataset(dataset.root, tmp_path / "source")
    shutil.copytree(dataset.source, source.source)
    victim, other = (uid.partition(":")[2] for uid in kept(dataset)[:2])
    glbs = {path.stem: path for path in source.source.glob("glbs/*/*.glb")}
    before = files(dataset)
    glbs[victim].write_bytes(glbs[other].read_bytes())
    lrm(source, "build", *SMALL)
    # Equal GLB files have equal grids, stored in one file.
    assert files(dataset) == before
    deleted = lrm(dataset, "compact")["deleted"]
    assert len(before - files(dataset)) == 1
    assert deleted["files"] >= 1
    lrm(dataset, "build", *SMALL)
    lrm(dataset, "compact")
    assert lrm(dataset, "plan", *SMALL)["work"] == {}
    assert files(dataset) == before


def test_a_build_without_the_stage_keeps_its_files(
    dataset: BuiltDataset, completed: dict[str, Any]
):
    before = files(dataset)
    lrm(dataset, "build")
    lrm(dataset, "compact")
    assert files(dataset) == before
    assert lrm(dataset, "plan", *SMALL)["work"] == {}
    lrm(dataset, "build", *SMALL)


def test_commands_name_a_stage_that_is_not_registered(
    dataset: BuiltDataset, completed: dict[str, Any]
):
    STAGES.remove(VOXELS)
    try:
        for command in ("status", "verify", "compact"):
            answer = run_lrm(command, "--root", dataset.root)
            assert (answer.code, answer.err.count("\n")) == (2, 1)
            assert "--stages: voxels: this stage is not registered" in answer.err
    finally:
        STAGES.add(VOXELS)


def test_compaction_deletes_the_file_of_a_removed_object(
    dataset: BuiltDataset, completed: dict[str, Any]
):
    before, victim = files(dataset), kept(dataset)[0]
    path = lrm(dataset, "inspect", victim)["measurements"]["voxels"]["path"]
    run_lrm("remove", victim, "--root", dataset.root, "--reason", "requested by the author")
    lrm(dataset, "compact")
    assert before - files(dataset) == {Path(path).name}
    run_lrm("remove", victim, "--root", dataset.root, "--undo")
    assert lrm(dataset, "plan", *SMALL)["work"]["voxels"] == {"retry": 1}
