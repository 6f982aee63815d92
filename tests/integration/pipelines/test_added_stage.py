"""A stage that is registered from outside: every command handles it without another line."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset.root import open_root
from pipelines.building.dataset_status import load_standing
from pipelines.building.stages.registry import STAGES
from tests.support.datasets import Built
from tests.support.lrm import run_lrm
from tests.support.voxel_stage import VOXELS

SMALL = ["--stages", "{voxels: {size: 4}}"]


@pytest.fixture(autouse=True, scope="module")
def added() -> Iterator[None]:
    STAGES.add(VOXELS)
    yield
    STAGES.remove(VOXELS)


@pytest.fixture(scope="module")
def dataset(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A finished dataset that was built without the stage."""
    copy = Built(tmp_path_factory.mktemp("voxels") / "root", built.source)
    shutil.copytree(built.root, copy.root)
    shutil.rmtree(copy.root / "snapshots", ignore_errors=True)
    return copy


@pytest.fixture(scope="module")
def completed(dataset: Built, ray_address: str) -> dict[str, Any]:
    """The status after a build with the stage, on workers that start without it."""
    return lrm(dataset, "build", *SMALL, "--address", ray_address)


def lrm(dataset: Built, command: str, *words: str) -> Any:
    sources = dataset.words if command in ("plan", "build") else []
    return run_lrm(command, *sources, "--root", dataset.root, *words, "--json").json()


def files(dataset: Built) -> set[str]:
    return {path.name for path in dataset.root.glob("voxels/*.npz")}


def kept(dataset: Built) -> list[str]:
    standing = load_standing(open_root(str(dataset.root)))
    return [state.asset_id for state in standing.kept]


def test_a_dataset_without_it_needs_nothing(dataset: Built):
    assert lrm(dataset, "plan")["work"] == {}


def test_the_plan_knows_its_work_and_its_cost(dataset: Built):
    num = lrm(dataset, "status")["kept"]
    plan = lrm(dataset, "plan", *SMALL)
    assert plan["work"] == {"voxels": {"new": num}}
    expected = plan["estimate"]["stages"]
    assert expected["voxels"]["objects"] == num
    assert expected["voxels"]["bytes"] == 300 * num
    assert expected["voxels"]["core_hours"] > 0


def test_status_counts_it(dataset: Built, completed: dict[str, Any]):
    num = completed["kept"]
    assert completed["stages"]["voxels"]["done"] == num
    assert completed["stages"]["voxels"]["parts"]["import"] > 0
    sizes = {path.name: path.stat().st_size for path in dataset.root.glob("voxels/*.npz")}
    assert len(sizes) == num
    assert completed["bytes"]["voxels"] == sum(sizes.values())
    assert completed["cost"]["took"]["stages"]["voxels"]["bytes"] == sum(sizes.values())
    assert lrm(dataset, "plan", *SMALL)["work"] == {}


def test_inspect_shows_its_measurements_and_events(dataset: Built, completed: dict[str, Any]):
    found = lrm(dataset, "inspect", kept(dataset)[0])
    assert 0 < found["measurements"]["voxels"]["occupied"] <= 64
    assert [event["stage"] for event in found["events"]][-1] == "voxels"
    assert found["state"] == "kept"


def test_its_settings_are_its_identity(dataset: Built, completed: dict[str, Any]):
    other = lrm(dataset, "plan", "--stages", "{voxels: {size: 5}}")
    assert other["work"] == {"voxels": {"configuration changed": completed["kept"]}}
    assert lrm(dataset, "plan", "--stages", "{voxels: {size: 4}}")["work"] == {}
    # It depends on the frame, not on the cameras.
    other_rig = lrm(dataset, "plan", *SMALL, "--rig", "orbit21")
    assert "voxels" not in other_rig["work"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{voxel: {}}", "--stages: stage 'voxel' does not exist; did you mean 'voxels'?"),
        ("{voxels: {siz: 4}}", "--stages: voxels: unknown key 'siz' (did you mean 'size'?)"),
        ("{render: {}}", "--stages: stage 'render' does not exist; there are: voxels"),
    ],
)
def test_a_wrong_name_or_setting_is_one_line(dataset: Built, words: str, said: str):
    answer = run_lrm("plan", *dataset.words, "--root", dataset.root, "--stages", words)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_damage_to_its_file_is_found_and_mended(dataset: Built, completed: dict[str, Any]):
    victim = sorted(dataset.root.glob("voxels/*.npz"))[0]
    intact = victim.read_bytes()
    victim.write_bytes(intact[:40])
    answer = run_lrm("verify", "--root", dataset.root, "--json")
    assert answer.code == 1
    found = json.loads(answer.out)
    assert found["voxels"] == completed["kept"]
    assert len(found["damaged"]) == 1
    assert "with --stages" in found["findings"][0]["remedy"]
    assert lrm(dataset, "status")["failed"]["sample_damaged"] == 1
    assert lrm(dataset, "plan", *SMALL)["work"] == {"voxels": {"retry": 1}}
    lrm(dataset, "build", *SMALL)
    assert victim.read_bytes() == intact
    assert run_lrm("verify", "--root", dataset.root).code == 0


def test_its_failures_count_and_can_be_retried(dataset: Built, completed: dict[str, Any]):
    tight = ["--stages", "{voxels: {size: 4, max_occupied: 1}}"]
    status = lrm(dataset, "build", *tight)
    assert status["failed"] == completed["failed"] | {"too_large": completed["kept"]}
    assert lrm(dataset, "plan", *tight)["work"] == {}
    retried = lrm(dataset, "retry", "--kind", "too_large")["cleared"]
    assert len(retried) == completed["kept"]
    assert lrm(dataset, "plan", *tight)["work"] == {"voxels": {"retry": completed["kept"]}}
    assert lrm(dataset, "build", *SMALL)["failed"] == completed["failed"]


def test_a_changed_file_is_redone_and_its_old_grid_is_freed(
    dataset: Built, completed: dict[str, Any], tmp_path: Path
):
    source = Built(dataset.root, tmp_path / "source")
    shutil.copytree(dataset.source, source.source)
    victim, other = (uid.partition(":")[2] for uid in kept(dataset)[:2])
    glbs = {path.stem: path for path in source.source.glob("glbs/*/*.glb")}
    before = files(dataset)
    glbs[victim].write_bytes(glbs[other].read_bytes())
    lrm(source, "build", *SMALL)
    # Equal files have equal grids, which lie in one file.
    assert files(dataset) == before
    old = lrm(dataset, "compact")["deleted"]
    assert len(before - files(dataset)) == 1
    assert old["files"] >= 1
    lrm(dataset, "build", *SMALL)
    lrm(dataset, "compact")
    assert lrm(dataset, "plan", *SMALL)["work"] == {}
    assert files(dataset) == before


def test_a_build_without_it_leaves_its_files(dataset: Built, completed: dict[str, Any]):
    before = files(dataset)
    lrm(dataset, "build")
    lrm(dataset, "compact")
    assert files(dataset) == before
    assert lrm(dataset, "plan", *SMALL)["work"] == {}
    lrm(dataset, "build", *SMALL)


def test_a_command_that_does_not_know_it_says_so(dataset: Built, completed: dict[str, Any]):
    STAGES.remove(VOXELS)
    try:
        for command in ("status", "verify", "compact"):
            answer = run_lrm(command, "--root", dataset.root)
            assert (answer.code, answer.err.count("\n")) == (2, 1)
            assert "--stages: voxels: this stage is not registered" in answer.err
    finally:
        STAGES.add(VOXELS)


def test_compaction_deletes_the_file_of_an_object_that_was_taken_down(
    dataset: Built, completed: dict[str, Any]
):
    before, victim = files(dataset), kept(dataset)[0]
    path = lrm(dataset, "inspect", victim)["measurements"]["voxels"]["path"]
    run_lrm("remove", victim, "--root", dataset.root, "--reason", "asked by its author")
    lrm(dataset, "compact")
    assert before - files(dataset) == {Path(path).name}
    run_lrm("remove", victim, "--root", dataset.root, "--undo")
    assert lrm(dataset, "plan", *SMALL)["work"]["voxels"] == {"retry": 1}
