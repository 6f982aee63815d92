"""The decision about the state and the next stage of an object; no stage runs in these tests."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.failures import FailureKind, Retry, kinds_with_retry
from core.storage import Storage
from dataset.catalog.event_columns import LIST
from dataset.catalog.event_log import Catalog, Event
from dataset.columns import TableColumns
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import STATES, Decider, Decision, Failure
from pipelines.building.object_table import latest_of, load_objects
from pipelines.building.projection import projection, with_event
from pipelines.building.stages.geometry import GEOMETRY
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.stage import Stage
from tests.support.listings import STAGE_DATA, listed_state

CONFIG = BuildConfig.load(
    {
        "source": "s",
        "root": "r",
        "filters": {"textured": {"enabled": False}, "multi_object": {"enabled": False}},
    }
)
WITH_GEOMETRY = BuildConfig.load(CONFIG.dump() | {"geometry": True})


NAMES = [stage.name for stage in STAGES]


def stage_named(name: str) -> Stage:
    """Return the registered stage with this name."""
    stage = STAGES.find(name)
    assert stage is not None
    return stage


def next_stage(decision: Decision) -> str | None:
    """Return the name of the stage to run next."""
    return decision.stage and decision.stage.name


def after_event(stage: str, state: ObjectState, config: BuildConfig, **fields: Any) -> ObjectState:
    """Return the state after one more event of a stage."""
    if fields.get("status", "ok") == "ok":
        fields = {"data": STAGE_DATA[stage]} | fields
    event = Decider(config).identities.event(stage_named(stage), state, **fields)
    return with_event(state, event)


def passed(*stages: str, config: BuildConfig = CONFIG, **changes) -> ObjectState:
    """Return the state of an object for which the given stages succeeded."""
    state = listed_state(**changes)
    for stage in stages:
        state = after_event(stage, state, config)
    return state


@pytest.mark.parametrize("config", [CONFIG, WITH_GEOMETRY], ids=["plain", "geometry"])
def test_stages_follow_each_other(config):
    decider = Decider(config)
    assert (GEOMETRY in decider.stages) == config.geometry
    names = [stage.name for stage in decider.stages]
    for done, stage in enumerate(decider.stages):
        decision = decider.decide(passed(*names[:done], config=config))
        assert (decision.state, decision.stage, decision.why) == ("pending", stage, "new")
    decision = decider.decide(passed(*names, config=config))
    assert (decision.state, decision.stage) == ("kept", None)


def test_geometry_that_is_enabled_later_runs_only_its_own_stage():
    decider = Decider(WITH_GEOMETRY)
    packed = passed("fetch", "inspect", "measure", "render", "pack")
    assert Decider(CONFIG).decide(packed).state == "kept"
    decision = decider.decide(packed)
    assert (decision.state, decision.stage, decision.why) == ("pending", GEOMETRY, "new")
    complete = after_event("geometry", packed, WITH_GEOMETRY)
    assert (decider.decide(complete).state, decider.decide(complete).stage) == ("kept", None)
    assert Decider(CONFIG).decide(complete).state == "kept"


@pytest.mark.parametrize(
    ("kind", "stage", "why"), [("crash", None, ""), ("storage", "geometry", "retry")]
)
def test_a_packed_object_whose_geometry_failed_counts_as_failed(kind, stage, why):
    decider = Decider(WITH_GEOMETRY)
    packed = passed("fetch", "inspect", "measure", "render", "pack")
    broken = after_event("geometry", packed, WITH_GEOMETRY, status="failed", kind=kind, message="m")
    decision = decider.decide(broken)
    assert (decision.state, next_stage(decision), decision.why) == ("failed", stage, why)
    assert Decider(CONFIG).decide(broken).state == "kept"


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({"render": {"resolution": 64}}, True),
        ({"rig": "orbit21"}, True),
        ({"rig": "zero123plus"}, False),  # another normalisation
        ({"surface": {"points": 7}}, False),
        ({"surface": {"seed": 1}}, False),
    ],
)
def test_geometry_depends_on_the_frame_and_not_on_cameras(change, holds):
    state = passed(*NAMES, config=WITH_GEOMETRY)
    changed = Decider(BuildConfig.load(WITH_GEOMETRY.dump() | change))
    assert changed.holds(GEOMETRY, state) is holds


def test_rigs_of_one_normalisation_share_the_geometry(tmp_path):
    decider = Decider(WITH_GEOMETRY)
    state, events = listed_state(), []
    data = {column.name: state.get(column) for column in LIST.listed}
    events.append(Event(asset_id=state.asset_id, stage="list", data=data))
    for stage in STAGES:
        events.append(decider.identities.event(stage, state, data=STAGE_DATA[stage.name]))
        state = with_event(state, events[-1])
    root = Storage(str(tmp_path))
    Catalog(root).commit(events, "run", 1)
    for rig, stages in (
        ("lrm32", {"fetch", "inspect", "measure", "render", "geometry", "pack"}),
        ("orbit21", {"fetch", "inspect", "geometry"}),
        ("zero123plus", {"fetch", "inspect"}),
    ):
        other = Decider(BuildConfig.load(WITH_GEOMETRY.dump() | {"rig": rig}))
        loaded = load_objects(latest_of(root), other).state(0)
        assert {s.name for s in STAGES if loaded.get(s.events.status)} == stages


def test_an_object_without_a_caption_is_dropped_before_its_download():
    decision = Decider(CONFIG).decide(passed(caption=None))
    assert (decision.state, decision.stage) == ("dropped", None)
    assert decision.dropped is not None
    assert decision.dropped.reason == "no_caption"


def test_all_known_reasons_are_reported_and_the_first_counts():
    state = passed("fetch", "inspect", "measure", caption=None, tags=("lowpoly",))
    state = after_event(
        "measure", state, CONFIG, data=STAGE_DATA["measure"] | {"coverage": [0.01] * 32}
    )
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
def test_a_changed_setting_repeats_the_stages_that_depend_on_it(change, stage, why):
    changed = BuildConfig.load(CONFIG.dump() | change)
    state = passed(*NAMES)
    decision = Decider(changed).decide(state)
    assert (next_stage(decision), decision.why) == (stage, why)


def test_a_changed_file_is_fetched_again_and_new_bytes_are_inspected_again():
    decider = Decider(CONFIG)
    # The listing changed after the events of the catalog.
    changed = ObjectState(row=passed(*NAMES).row | {"list.version": "2"})
    decision = decider.decide(changed)
    assert (next_stage(decision), decision.why) == ("fetch", "file changed")
    same = after_event("fetch", changed, CONFIG)
    assert decider.decide(same).state == "kept"
    other = after_event("fetch", changed, CONFIG, data=STAGE_DATA["fetch"] | {"sha256": "e" * 64})
    decision = decider.decide(other)
    assert (next_stage(decision), decision.why) == ("inspect", "bytes changed")


def test_a_cleared_failure_is_retried():
    state = failed("crash")
    cleared = after_event("render", state, WITH_GEOMETRY, status="cleared")
    decision = Decider(WITH_GEOMETRY).decide(cleared)
    assert (decision.state, next_stage(decision), decision.why) == ("pending", "render", "retry")


def test_a_tombstone_drops_an_object_in_any_state():
    for state in (listed_state(), passed(*NAMES), failed("crash")):
        removal = Event(asset_id=state.asset_id, stage="remove", message="asked by its author")
        removed = with_event(state, removal)
        decision = Decider(CONFIG).decide(removed)
        assert (decision.state, decision.stage) == ("dropped", None)
        assert decision.dropped.reason == "removed"
        assert decision.dropped.measured == "asked by its author"
        undone = Event(asset_id=state.asset_id, stage="remove", status="cleared")
        assert Decider(CONFIG).decide(with_event(removed, undone)).state != "dropped"


def failed(kind: str, stage: str = "render") -> ObjectState:
    """Return the state of an object that failed in the stage after all earlier ones succeeded."""
    state = passed(*NAMES[: NAMES.index(stage)], config=WITH_GEOMETRY)
    return after_event(stage, state, WITH_GEOMETRY, status="failed", kind=kind, message="m")


def test_an_objects_own_fault_is_not_retried_without_a_change():
    decision = Decider(CONFIG).decide(failed("crash"))
    assert (decision.state, decision.stage) == ("failed", None)
    assert decision.failure == Failure(stage="render", kind="crash", message="m")


@pytest.mark.parametrize("stages", [(), ("fetch", "inspect"), NAMES])
def test_an_object_whose_annotation_cannot_be_used_has_failed(stages):
    """Filters do not see it, whatever stages it passed before."""
    state = passed(*stages, caption=None)
    state = ObjectState(row=state.row | BAD_ANNOTATION)
    decision = Decider(CONFIG).decide(state)
    assert (decision.state, decision.stage) == ("failed", None)
    assert decision.failure == Failure(stage="list", kind="bad_annotation", message="m")
    assert "caption" not in {verdict.filter for verdict in decision.verdicts}
    removed = ObjectState(row=state.row | {"remove.status": "ok"})
    assert Decider(CONFIG).decide(removed).state == "dropped"


RETRIED = kinds_with_retry(Retry.NEXT_BUILD, Retry.AT_ONCE)


@pytest.mark.parametrize("kind", sorted(RETRIED - {FailureKind.SAMPLE_DAMAGED}))
def test_a_failure_that_is_not_the_objects_fault_is_retried(kind):
    decision = Decider(CONFIG).decide(failed(kind))
    assert (decision.state, next_stage(decision), decision.why) == ("failed", "render", "retry")


@pytest.mark.parametrize("stage", ["measure", "render", "geometry"])
def test_a_timeout_is_retried_with_changed_limits(stage):
    longer = BuildConfig.load(WITH_GEOMETRY.dump() | {"blender": {"render_seconds": 9999}})
    assert Decider(WITH_GEOMETRY).decide(failed("timeout", stage)).stage is None
    decision = Decider(longer).decide(failed("timeout", stage))
    assert (decision.state, next_stage(decision), decision.why) == (
        "failed",
        stage,
        "limits changed",
    )


def test_a_file_over_a_limit_of_the_inspection_is_retried_only_with_another_limit():
    over = failed(FailureKind.TOO_LARGE, "inspect")
    other_child = BuildConfig.load(WITH_GEOMETRY.dump() | {"blender": {"render_seconds": 9999}})
    for config in (WITH_GEOMETRY, other_child):
        assert Decider(config).decide(over).stage is None
    higher = BuildConfig.load(WITH_GEOMETRY.dump() | {"inspect": {"max_file_bytes": 2**31}})
    decision = Decider(higher).decide(over)
    assert (next_stage(decision), decision.why) == ("inspect", "configuration changed")


def test_a_file_that_is_too_large_to_fetch_is_fetched_only_with_another_limit():
    over = failed(FailureKind.TOO_LARGE, "fetch")
    other = {"inspect": {"max_nodes": 5}, "blender": {"render_seconds": 9999}}
    for config in (WITH_GEOMETRY, BuildConfig.load(WITH_GEOMETRY.dump() | other)):
        assert Decider(config).decide(over).stage is None
    higher = BuildConfig.load(WITH_GEOMETRY.dump() | {"inspect": {"max_file_bytes": 2**31}})
    decision = Decider(higher).decide(over)
    assert (next_stage(decision), decision.why) == ("fetch", "limits changed")


def test_equal_files_of_two_objects_have_different_identities():
    decider = Decider(CONFIG)
    one, two = passed("fetch"), passed("fetch", asset_id="objaverse:" + "b" * 32)
    key = decider.identities.key
    assert key(stage_named("inspect"), one) == key(stage_named("inspect"), two)
    for stage in ("measure", "render", "pack"):
        assert key(stage_named(stage), one) != key(stage_named(stage), two)


@st.composite
def objects(draw: st.DrawFn) -> ObjectState:
    """Draw an object with any history: current and outdated results, failures, cleared failures."""
    caption = draw(st.sampled_from([None, "a chair"]))
    state = listed_state(caption=caption, tags=draw(st.sampled_from([(), ("lowpoly",)])))
    if draw(st.integers(0, 5)) == 0:
        state = ObjectState(row=state.row | BAD_ANNOTATION)
    for stage in NAMES[: draw(st.integers(0, len(NAMES)))]:
        fields = draw(
            st.sampled_from(
                [
                    {},
                    {},
                    {},
                    {"status": "failed", "kind": "crash"},
                    {"status": "failed", "kind": "storage"},
                    {"status": "failed", "kind": "timeout"},
                    {"status": "cleared"},
                ]
            )
        )
        if stage == "measure" and not fields and draw(st.booleans()):
            fields = {"data": STAGE_DATA["measure"] | {"coverage": [0.01]}}
        config = draw(st.sampled_from([WITH_GEOMETRY, SMALL]))
        state = after_event(stage, state, config, **fields)
    changes = draw(st.sampled_from([{}, {}, {"list.version": "2"}, {"fetch.sha256": "d" * 64}]))
    return ObjectState(row=state.row | changes)


BAD_ANNOTATION = {"list.status": "failed", "list.kind": "bad_annotation", "list.message": "m"}
SMALL = BuildConfig.load(
    WITH_GEOMETRY.dump() | {"render": {"resolution": 64}, "blender": {"render_seconds": 9}}
)


@given(st.lists(objects(), min_size=1, max_size=12), st.sampled_from([CONFIG, WITH_GEOMETRY]))
def test_deciding_many_objects_equals_deciding_each_alone(states, config):
    decider = Decider(config)
    types = {"asset_id": pa.string()}
    columns = projection()
    for stage in ("list", "remove", *NAMES):
        schema = columns.schema(stage)
        types |= {f"{stage}.{name}": schema.field(name).type for name in schema.names}
    table = pa.Table.from_pylist([dict(state.row) for state in states], schema=pa.schema(types))
    together = decider.decide_all(TableColumns(table))
    for row, state in enumerate(states):
        assert together.at(row) == decider.decide(state)
    counted = {state: int(together.where(state).sum()) for state in STATES}
    assert sum(counted.values()) == len(states)
    assert (together.where("dropped") == (together.reason >= 0)).all()
    assert (together.where("failed") == (together.failed >= 0)).all()
    assert not (together.where("pending") & (together.stage < 0)).any()
    assert np.isin(together.stage[together.where("kept")], [-1]).all()
