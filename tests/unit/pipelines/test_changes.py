"""What changed settings redo, when that is refused, and which settings a dataset remembers."""

import json

import pytest

from core.errors import BadInput
from core.options import load_settings
from core.storage import Storage
from dataset.root import write_build
from pipelines.building.build_config import BuildConfig
from pipelines.building.estimates.cost import StageCost
from pipelines.building.guard.changes import Change, Changes
from pipelines.building.guard.remembered import (
    REMEMBERED,
    differences,
    read_memory,
    remembered_settings,
)
from pipelines.building.guard.result_versions import present_versions, versions_of
from pipelines.building.stages.registry import STAGES

CONFIG = BuildConfig.load({"source": "/s", "root": "/r"})


def changes(*items: Change, **core_hours: float) -> Changes:
    costs = {name: StageCost(objects=100, core_hours=hours) for name, hours in core_hours.items()}
    return Changes(items=items, again=costs, new={"geometry": StageCost(objects=3, core_hours=99)})


def change(name: str, *stages: str, **fields) -> Change:
    return Change(name=name, before=1, after=2, again=frozenset(stages), **fields)


def test_the_limit_holds_for_all_repeated_work_together():
    two = (change("inspect.max_nodes", "inspect"), change("render.seed", "render", "pack"))
    changes(*two, inspect=4.0, render=5.0, pack=1.0).check(())
    with pytest.raises(BadInput, match=r"10 core-hours .* '\[inspect.max_nodes, render.seed\]'"):
        changes(*two, inspect=4.0, render=5.0, pack=1.1).check(())
    # What was accepted leaves the sum.
    changes(*two, inspect=4.0, render=50.0, pack=1.1).check(["render.seed"])
    changes(*two, inspect=4.0, render=50.0, pack=1.1).check(["render"])


def test_work_for_two_changes_counts_until_both_are_accepted():
    two = changes(change("renderer", "render"), change("render.seed", "render"), render=11.0)
    for accepted in ([], ["renderer"], ["render.seed"], ["rend"], ["render.seed.x"]):
        with pytest.raises(BadInput):
            two.check(accepted)
    two.check(["renderer", "render.seed"])


def test_gpu_hours_are_limited_as_core_hours_are():
    costs = {"render": StageCost(objects=1, gpu_hours=10.5)}
    with pytest.raises(BadInput, match="GPU-hours"):
        Changes(items=[change("render.seed", "render")], again=costs).check(())


def test_new_work_and_filters_are_never_refused():
    added = change("geometry", new=frozenset({"geometry"}))
    dropped = change("filters.occupancy.min_share", num_dropped=1, num_undropped=2)
    found = changes(added, dropped, change("shards.samples_per_shard"))
    found.check(())
    assert found.lines() == [
        "geometry 1 → 2: 3 objects (geometry), 99 core-hours",
        "filters.occupancy.min_share 1 → 2: 1 object newly dropped, 2 objects no longer dropped",
        "shards.samples_per_shard 1 → 2",
    ]
    assert json.loads(json.dumps(found.to_dict(())))["items"][0]["new"] == {"geometry": 3}


def test_every_setting_is_remembered_or_one_of_a_call():
    """A new section of the configuration needs a decision."""
    of_one_call = {"address", "blender", "execution", "fetch", "limit", "prices"}
    assert set(BuildConfig.model_fields) == {*REMEMBERED, "root", "rig"} | of_one_call


def test_only_remembered_settings_differ():
    other = {"limit": 3, "address": "none", "blender": {"threads": 7}, "rig": "orbit21"}
    assert differences(CONFIG, BuildConfig.load(CONFIG.dump() | other)) == {}
    other = {"captions": "c", "stages": {"sdf": {}}, "render": {"seed": 4}}
    assert differences(CONFIG, BuildConfig.load(CONFIG.dump() | other)) == {
        "captions": (None, "c"),
        "render.seed": (0, 4),
        "stages": ({}, {"sdf": {}}),
    }


def test_a_setting_that_is_a_mapping_is_replaced_as_a_whole():
    """Otherwise no stage could be turned off again."""
    remembered = {"source": "s", "root": "r", "stages": {"sdf": {"size": 64}}}
    given = {"stages": {}, "render": {"samples": 2}}
    config = load_settings(BuildConfig, given, None, remembered | {"render": {"resolution": 40}})
    assert (config.stages, config.render.samples, config.render.resolution) == ({}, 2, 40)


def test_versions_concern_the_stages_that_depend_on_them():
    present = present_versions(CONFIG)
    concerned = {
        name: [stage.name for stage in STAGES if name in versions_of(stage, CONFIG)]
        for name in present
    }
    assert concerned["renderer"] == ["measure", "render", "geometry", "pack"]
    assert concerned["rig"] == ["measure", "render", "pack"]
    assert concerned["inspect"] == ["inspect"]
    assert concerned["fetch"] == []


def test_a_dataset_of_an_earlier_version_remembers_its_last_build(tmp_path):
    root = Storage(str(tmp_path))
    assert read_memory(root).of(None) is None
    assert remembered_settings(root) is None
    write_build(root, {})  # as another program writes it
    assert remembered_settings(root) is None
    values = CONFIG.dump() | {"rig": "orbit21", "limit": 7, "render": {"resolution": 96}}
    values["blender"] = {"max_nodes": 1000}  # an old name
    write_build(root, {"config": values, "captions_revision": ""})
    remembered = remembered_settings(root)
    assert remembered is not None
    assert (remembered.rig, remembered.root, remembered.limit) == ("orbit21", root.uri, None)
    assert (remembered.render.resolution, remembered.inspect.max_nodes) == (96, 1000)
    assert read_memory(root).rigs["orbit21"].versions is None
    other = remembered_settings(root, "lrm32")
    assert other is not None
    assert (other.rig, other.render.resolution) == ("lrm32", 96)
