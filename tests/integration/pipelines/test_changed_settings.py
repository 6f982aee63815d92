"""Changed settings are named with the work that they cause; much repeated work is refused."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.storage import Storage
from dataset.catalog.event_log import Catalog
from pipelines.building.build_config import BuildConfig
from pipelines.building.guard.comparison import Comparison
from pipelines.building.guard.remembered import read_memory
from pipelines.building.object_table import latest_of
from pipelines.building.plan import load_plan
from pipelines.building.records.build_record import BuildRecord
from pipelines.building.stages.identities import Identities
from pipelines.building.stages.inspect import INSPECT
from pipelines.sources import open_source
from tests.support.datasets import BuiltDataset, events_of
from tests.support.lrm import run_lrm

EXPENSIVE = ["--blender.threads", "65536", "--execution.fetch-cpus", "1e9"]
"""Reserved cores: with this many, the stages of a few objects cost more than 10 core-hours."""


@pytest.fixture
def root(built_dataset: BuiltDataset, tmp_path: Path) -> Path:
    """Return a copy of the demo dataset: 9 kept objects of 15."""
    return shutil.copytree(built_dataset.root, tmp_path / "root")


def plan(root: Path, *words: Any, code: int = 0) -> dict[str, dict[str, Any]]:
    """Return the changes in the forecast, by name."""
    answer = run_lrm("plan", "--root", root, "--json", *words)
    assert answer.code == code, answer.err
    return {change["name"]: change for change in json.loads(answer.out)["changes"]["items"]}


def files(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def record(root: Path, **changes: Any) -> None:
    """Change what the dataset remembers of its only rig."""
    path = root / "build.json"
    build = json.loads(path.read_text())
    build["rigs"]["lrm32"] = {**build["rigs"]["lrm32"], **changes}
    path.write_text(json.dumps(build))


def make_older(root: Path, stages: Sequence[str]) -> None:
    """Add the events that another version of the software would have written."""
    catalog = Catalog(Storage(str(root)))
    names = {row["asset_id"] for row in events_of(root)}
    events = [item.event for name in sorted(names) for item in catalog.history(name)]
    older = [replace(event, settings="0" * 16) for event in events if event.stage in stages]
    catalog.commit(older, "older", 1)


def test_each_setting_is_listed_with_its_own_work(root):
    words = ["--render.resolution", "64", "--inspect.max-nodes", "9000", "--geometry"]
    words += ["--shards.samples-per-shard", "9", "--filters.caption.enabled", "false"]
    changes = plan(root, *words, "--filters.occupancy.min-share", "0.99")
    assert list(changes) == [
        *("geometry", "filters.caption.enabled", "filters.occupancy.min_share"),
        *("render.resolution", "inspect.max_nodes", "shards.samples_per_shard"),
    ]
    assert changes["inspect.max_nodes"]["again"] == {"inspect": 12}
    assert (changes["geometry"]["again"], changes["shards.samples_per_shard"]["again"]) == ({}, {})
    assert changes["filters.caption.enabled"]["undropped"] == 1
    assert changes["filters.occupancy.min_share"]["dropped"] > 0
    changes = plan(root, "--render.resolution", "64", "--geometry")
    assert changes["render.resolution"]["again"] == {"pack": 9, "render": 9}
    assert changes["render.resolution"]["core_hours"] > 0
    assert changes["geometry"]["new"] == {"geometry": 9}
    answer = run_lrm("plan", "--root", root, "--render.resolution", "64")
    assert "render.resolution 40 → 64: 9 objects again (render, pack), 0.0" in answer.out


def test_much_repeated_work_must_be_accepted(root):
    before = files(root)
    words = ["--render.resolution", "64", "--render.samples", "2", *EXPENSIVE]
    answer = run_lrm("build", "--root", root, "--address", "none", *words)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert "render.resolution 40 → 64: 9 objects again (render, pack)" in line
    assert line.endswith("--accept-changes '[render.resolution, render.samples]'")
    plan(root, *words, code=2)
    plan(root, *words, "--accept-changes", "[render.resolution]", code=2)
    plan(root, *words, "--accept-changes", "[render.resolution, render.samples]")
    plan(root, *words, "--accept-changes", "render")
    plan(root, *EXPENSIVE)
    plan(root, "--geometry", "--filters.occupancy.min-share", "0.99", *EXPENSIVE)
    assert {path: data for path, data in files(root).items() if "lock" not in path} == {
        path: data for path, data in before.items() if "lock" not in path
    }


@pytest.mark.parametrize(
    ("versions", "name", "before"),
    [
        ({"renderer": "blender-4.5/3", "rig": "lrm32/1"}, "renderer", "blender-4.5/3"),
        (None, "renderer", "an earlier version"),
    ],
)
def test_a_changed_renderer_is_a_change(root, versions, name, before):
    make_older(root, ["measure", "render", "pack"])
    record(root, versions=versions)
    changes = plan(root, *EXPENSIVE, code=2)
    assert list(changes) == [name]
    assert changes[name]["before"] == before
    assert changes[name]["again"] == {"measure": 11, "render": 9, "pack": 9}
    plan(root, *EXPENSIVE, "--accept-changes", f"[{name}]")


@pytest.mark.parametrize(
    ("versions", "stages"),
    [({"rig": "lrm32/0"}, ["measure", "render", "pack"]), ({"inspect": "inspect/2"}, ["inspect"])],
)
def test_the_versions_of_a_rig_and_of_a_stage_are_changes(root, versions, stages):
    make_older(root, stages)
    record(root, versions=versions)
    ((name, change),) = plan(root).items()
    assert (name, change["before"]) == next(iter(versions.items()))
    assert list(change["again"]) == sorted(stages)


def test_a_trial_with_a_limit_does_not_hide_the_change(root):
    """The trial becomes what the dataset remembers; the rest is still refused."""
    words = ["--limit", "5", "--inspect.max-nodes", "9000", "--address", "none"]
    assert run_lrm("build", "--root", root, *words).code == 0
    rest = plan(root, *EXPENSIVE, code=2)
    assert list(rest) == ["inspect.max_nodes"]
    change = rest["inspect.max_nodes"]
    assert (change["before"], change["after"]) == (20_000, 9000)
    assert 0 < change["again"]["inspect"] < 12
    plan(root, *EXPENSIVE, "--accept-changes", "inspect")
    # Without the records of the builds only the stage is known.
    shutil.rmtree(root / "builds")
    rest = plan(root, *EXPENSIVE, code=2)
    assert (rest["inspect"]["before"], rest["inspect"]["after"]) == ("other settings", "inspect/3")


def test_a_killed_build_hides_no_earlier_measurements(root):
    """Its settings are remembered, but have no results yet."""
    words = ["plan", "--root", root, "--json"]
    before = run_lrm(*words, "--render.resolution", "64").json()["estimate"]["stages"]["render"]
    settings = json.loads((root / "build.json").read_text())["rigs"]["lrm32"]["settings"]
    record(root, settings={**settings, "render": {**settings["render"], "resolution": 64}})
    after = run_lrm(*words).json()
    assert after["estimate"]["stages"]["render"] == before
    assert [change["name"] for change in after["changes"]["items"]] == ["render.resolution"]


def test_a_limit_between_keeps_the_rest_of_an_interrupted_build_accepted(root):
    build = json.loads((root / "build.json").read_text())
    remembered = build["rigs"]["lrm32"]
    settings = remembered["settings"] | {
        "inspect": remembered["settings"]["inspect"] | {"max_nodes": 9000}
    }
    values = {"root": str(root), **settings}
    begun = Identities(BuildConfig.load(values)).settings(INSPECT)
    record(root, settings=settings, accepted={"inspect": {"settings": begun, "objects": 12}})
    assert plan(root, *EXPENSIVE) == {}
    words = ["build", "--root", root, "--address", "none"]
    assert run_lrm(*words, "--limit", "5").code == 0
    assert 0 < run_lrm("plan", "--root", root, "--json").json()["work"]["inspect"].popitem()[1] < 12
    assert plan(root, *EXPENSIVE) == {}
    # Other settings were not accepted.
    assert list(plan(root, *EXPENSIVE, "--inspect.max-nodes", "8000", code=2)) == [
        "inspect.max_nodes"
    ]
    assert run_lrm(*words).code == 0
    assert json.loads((root / "build.json").read_text())["rigs"]["lrm32"]["accepted"] == {}


def test_a_filter_counts_without_what_changed_data_drop(root, tmp_path):
    """An object that loses its caption counts for the filter, too: with the earlier one it does."""
    words = ["--filters.occupancy.min-share", "0.99"]
    alone = plan(root, *words)["filters.occupancy.min_share"]["dropped"]
    assert alone == 9
    with open(json.loads((root / "build.json").read_text())["config"]["captions"]) as file:
        rows = file.readlines()
    kept = next(row["asset_id"] for row in events_of(root) if row["stage"] == "render")
    name = kept.partition(":")[2]
    (tmp_path / "captions.csv").write_text("".join(row for row in rows if name not in row))
    changes = plan(root, *words, "--captions", tmp_path / "captions.csv")
    assert changes["filters.occupancy.min_share"]["dropped"] == alone


def test_unknown_names_of_changes_are_refused(root):
    words = ["plan", "--root", root, "--render.resolution", "64", "--accept-changes"]
    answer = run_lrm(*words, "[render.resolutoin]")
    assert answer.code == 2
    assert "'render.resolutoin' does not exist; did you mean 'render.resolution'?" in answer.err
    # The same command may continue once the setting is that of the last build.
    assert run_lrm(*words, "[inspect.max_nodes, surface]").code == 0
    answer = run_lrm(*words, "[1, 2]")
    assert (answer.code, "expected a list of names" in answer.err) == (2, True)


def test_the_forecast_says_what_is_refused(root):
    words = ["plan", "--root", root, "--json", "--render.resolution", "64", *EXPENSIVE]
    answer = run_lrm(*words)
    changes = json.loads(answer.out)["changes"]
    assert changes["refused"]
    assert changes["message"] in answer.err
    for names in ("[render.resolution]", "render.resolution, renderer"):
        changes = run_lrm(*words, "--accept-changes", names).json()["changes"]
        assert (changes["refused"], changes["message"]) == (False, "")


def test_an_interrupted_build_continues_without_being_asked_again(root):
    memory = read_memory(Storage(str(root)))
    remembered = memory.of("lrm32")
    values = remembered.config.dump()
    values["render"]["resolution"] = 64
    config = type(remembered.config).load(values)
    source = open_source(config.source, None, config.captions)
    storage = Storage(config.root)
    the_plan = load_plan(config, source, storage, latest_of(storage), memory)
    comparison = Comparison(
        config,
        remembered,
        decisions=the_plan.decisions,
        rows=the_plan.rows,
        estimate=the_plan.estimate,
    )
    begun = {name: work["objects"] for name, work in comparison.accepted.items()}
    assert begun == {"render": 9, "pack": 9}
    with BuildRecord(storage, config, memory, comparison, {}).of(the_plan, source.revision, "run"):
        assert plan(root, *EXPENSIVE) == {}
        # Other settings were not accepted.
        assert list(plan(root, *EXPENSIVE, "--render.seed", "1", code=2)) == ["render.seed"]
    # What a build leaves undone at its end is asked for again.
    plan(root, *EXPENSIVE, code=2)
