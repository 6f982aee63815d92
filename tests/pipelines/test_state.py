"""What happens to an object next: the one function that decides it, without any work."""

from dataclasses import replace

import pytest

from dataset.catalog import Event
from dataset.objects import ObjectRecord
from pipelines.settings import BuildConfig
from pipelines.state import STAGES, Decider, ObjectState

CONFIG = BuildConfig.load(
    {
        "source": "s",
        "root": "r",
        "filters": {"textured": {"enabled": False}, "several": {"enabled": False}},
    }
)
RECORD = ObjectRecord(
    asset_id="objaverse:" + "a" * 32,
    path="glbs/000-000/a.glb",
    name="chair",
    licence="by",
    author="me",
    tags=(),
    categories=(),
    caption="a chair",
    age_restricted=False,
)
DATA = {
    "fetch": {"sha256": "f" * 64, "bytes": 1, "raw": None},
    "measure": {"coverage": [0.2] * 32},
    "render": {"staging": "staging/x.tar", "bytes": 1},
}


def passed(*stages: str, config: BuildConfig = CONFIG, **changes) -> ObjectState:
    """An object that went well through the given stages."""
    decider = Decider(config)
    state = ObjectState(record=replace(RECORD, **changes), version="1", results={})
    for stage in stages:
        state = state.with_event(decider.event(stage, state, data=DATA.get(stage, {})))
    return state


@pytest.mark.parametrize("done", range(len(STAGES)))
def test_stages_follow_each_other(done):
    decision = Decider(CONFIG).decide(passed(*STAGES[:done]))
    assert (decision.state, decision.stage, decision.why) == ("pending", STAGES[done], "new")


def test_all_stages_done_is_kept():
    decision = Decider(CONFIG).decide(passed(*STAGES))
    assert (decision.state, decision.stage) == ("kept", None)


def test_no_caption_needs_no_download():
    decision = Decider(CONFIG).decide(passed(caption=None))
    assert (decision.state, decision.stage) == ("dropped", None)
    assert decision.dropped is not None
    assert decision.dropped.reason == "no_caption"


def test_all_known_reasons_are_told_and_the_first_counts():
    state = passed("fetch", "inspect", "measure", caption=None, tags=("lowpoly",))
    small = state.results["measure"]
    state = state.with_event(replace(small, data={**small.data, "coverage": [0.01] * 32}))
    decision = Decider(CONFIG).decide(state)
    reasons = [verdict.reason for verdict in decision.verdicts if not verdict.keep]
    assert reasons == ["no_caption", "lowpoly_tag", "low_occupancy"]


@pytest.mark.parametrize(
    ("change", "stage", "why"),
    [
        ({"render": {"resolution": 64}}, "render", "configuration changed"),
        ({"rig": "orbit21"}, "measure", "configuration changed"),
        ({"inspect": {"max_nodes": 7}}, "inspect", "configuration changed"),
        ({"blender": {"threads": 2}}, None, ""),
        ({"shards": {"samples_per_shard": 2}}, None, ""),
    ],
)
def test_a_changed_setting_redoes_what_depends_on_it(change, stage, why):
    changed = BuildConfig.load(CONFIG.dump() | change)
    state = passed(*STAGES)
    decision = Decider(changed).decide(state)
    assert (decision.stage, decision.why) == (stage, why)


def test_a_changed_file_is_fetched_again_and_new_bytes_are_redone():
    decider = Decider(CONFIG)
    changed = replace(passed(*STAGES), version="2")
    assert (decider.decide(changed).stage, decider.decide(changed).why) == ("fetch", "file changed")
    same = changed.with_event(decider.event("fetch", changed, data=DATA["fetch"]))
    assert decider.decide(same).state == "kept"
    other = changed.with_event(
        decider.event("fetch", changed, data=DATA["fetch"] | {"sha256": "e" * 64})
    )
    assert (decider.decide(other).stage, decider.decide(other).why) == ("inspect", "bytes changed")


def failed(kind: str) -> ObjectState:
    state = passed("fetch", "inspect", "measure")
    event = Decider(CONFIG).event("render", state, status="failed", kind=kind, message="m")
    return state.with_event(event)


def test_an_object_at_fault_waits_for_a_change():
    decision = Decider(CONFIG).decide(failed("crash"))
    assert (decision.state, decision.stage) == ("failed", None)
    assert isinstance(decision.failure, Event)


@pytest.mark.parametrize("kind", ["worker_lost", "no_device", "no_start", "storage"])
def test_what_is_not_the_objects_fault_is_tried_again(kind):
    decision = Decider(CONFIG).decide(failed(kind))
    assert (decision.state, decision.stage, decision.why) == ("failed", "render", "retry")


def test_other_limits_are_worth_another_try():
    patient = BuildConfig.load(CONFIG.dump() | {"blender": {"render_seconds": 9999}})
    assert Decider(CONFIG).decide(failed("timeout")).stage is None
    decision = Decider(patient).decide(failed("timeout"))
    assert (decision.state, decision.stage, decision.why) == ("failed", "render", "limits changed")


def test_equal_files_of_two_objects_are_two_results():
    decider = Decider(CONFIG)
    one, two = passed("fetch"), passed("fetch", asset_id="objaverse:" + "b" * 32)
    assert decider.key("inspect", one) == decider.key("inspect", two)
    for stage in ("measure", "render", "pack"):
        assert decider.key(stage, one) != decider.key(stage, two)
