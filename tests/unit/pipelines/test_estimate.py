"""Estimates follow the settings, leave out what stays valid, and say how uncertain they are."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import merge
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.root import write_build
from pipelines.building.build_config import BuildConfig
from pipelines.building.decide import Decider, Decisions
from pipelines.building.estimates.cost import Cost
from pipelines.building.estimates.estimate import estimate_rest, first_estimate, remaining_work
from pipelines.building.estimates.expected_objects import (
    expected_objects,
    measured_shares,
    routes,
)
from pipelines.building.estimates.unit_costs import earlier_measurements, known_settings
from pipelines.building.object_table import latest_of, load_objects
from pipelines.building.projection import with_event
from pipelines.building.stages.blender_scene import OPENING_SECONDS
from pipelines.building.stages.registry import STAGES
from pipelines.building.stages.render import RENDER
from render.rigs import RIGS
from tests.support.listings import listed_state

CONFIG = BuildConfig.load(
    {
        "source": "s",
        "root": "r",
        "geometry": True,
        "render": {"resolution": 256},
        "filters": {"textured": {"enabled": False}, "multi_object": {"enabled": False}},
    }
)
STAGE_NAMES = [stage.name for stage in STAGES]
ISLANDS = {"whole": {"1": {"groups": [], "islands": []}, "2": {"groups": []}}, "slab": None}
RENDER_SECONDS = {"prepare": 0.5, "geometry": 1.5, "probe": 1.0, "colour": 16.5, "check": 0.5}
DATA: dict[str, dict[str, Any]] = {
    "fetch": {"sha256": "f" * 64, "bytes": 1},
    "inspect": {"num_triangles": 1, "base_colour_maps": []},
    "measure": {
        "coverage": [0.2] * 32,
        "islands": ISLANDS,
        "thickness": 0.5,
        "timings": {"import": 0.5, "measure": 1.0, "islands": 0.5},
    },
    "render": {
        "staging": "staging/x",
        "bytes": 1_000_000,
        "coverage": [0.2] * 32,
        "timings": RENDER_SECONDS,
    },
    "geometry": {"path": "geometry/cube/x.npz", "bytes": 1000},
    "pack": {"shard": "shards/lrm32/x.tar", "sample": "x", "shard_sha256": ""},
}
SECONDS = {"fetch": 0.1, "inspect": 0.1, "measure": 2.0, "render": 20.0, "geometry": 0.5}
TOO_SMALL = {"measure": {"data": DATA["measure"] | {"coverage": [0.0001] * 32}}}
"""Changes with which the filter `low_occupancy` drops an object."""


def changed(config: BuildConfig, **changes: Any) -> BuildConfig:
    return BuildConfig.load(merge(config.dump(), changes))


class Catalogued:
    """A dataset of invented objects in a folder."""

    def __init__(self, folder: Path, config: BuildConfig = CONFIG) -> None:
        self.root = Storage(str(folder))
        self.config = config
        write_build(self.root, {"config": config.dump()})
        self.seq = 0

    def add(self, num: int, *stages: str, **changes: dict[str, Any]) -> None:
        """Add objects for which these stages succeeded, or what `changes` say of a stage."""
        identities = Decider(self.config).identities
        events = []
        for number in range(self.seq, self.seq + num):
            state = listed_state(asset_id=f"objaverse:{number:032x}")
            listed = state.record.to_dict() | {"version": "1", "part": "000-000"}
            events.append(Event(asset_id=listed.pop("asset_id"), stage="list", data=listed))
            for name in stages:
                fields = {"data": DATA[name], "seconds": SECONDS.get(name, 0.1)}
                event = identities.event(STAGES[name], state, **fields | changes.get(name, {}))
                state = with_event(state, event)
                events.append(event)
        self.seq += num
        Catalog(self.root).commit(events, f"run{self.seq}", 1)

    def decisions(self, config: BuildConfig) -> Decisions:
        objects = load_objects(latest_of(self.root), Decider(config))
        return Decider(config).decide_all(objects.columns)

    def estimate(self, config: BuildConfig) -> Cost:
        """Return the estimate of all work under a configuration."""
        decisions = self.decisions(config)
        rows = np.flatnonzero(decisions.stage >= 0)
        known = known_settings(self.root)
        earlier = earlier_measurements(latest_of(self.root), config, known)
        return estimate_rest(rows, decisions, decisions.columns, config, earlier)


@pytest.fixture
def dataset(tmp_path: Path) -> Catalogued:
    dataset = Catalogued(tmp_path)
    dataset.add(40, *STAGE_NAMES)
    return dataset


def render_seconds(cost: Cost) -> float:
    """Return the seconds per object that starts with the render, without those of its opening."""
    render = cost.stages["render"]
    return render.core_hours * 3600 / render.objects - OPENING_SECONDS


def test_a_plan_of_nothing_costs_nothing(dataset: Catalogued) -> None:
    assert dataset.estimate(CONFIG).stages == {}


def test_measured_seconds_and_bytes_follow_the_resolution(dataset: Catalogued) -> None:
    """Sixty-four times the pixels: nearly that time, and less than that in compressed bytes."""
    large = dataset.estimate(changed(CONFIG, render={"resolution": 2048}))
    assert 50 < render_seconds(large) / 20 < 64
    assert 8 < large.stages["render"].bytes / (40 * 1e6) < 32
    small = dataset.estimate(changed(CONFIG, render={"resolution": 64}))
    assert 1 / 16 < render_seconds(small) / 20 < 1 / 6


def test_each_timed_part_follows_its_own_work(tmp_path: Path) -> None:
    """A render that mostly prepares hardly depends on the resolution."""
    dataset = Catalogued(tmp_path)
    timings = {"prepare": 19.0, "colour": 1.0}
    dataset.add(40, *STAGE_NAMES, render={"data": DATA["render"] | {"timings": timings}})
    large = dataset.estimate(changed(CONFIG, render={"resolution": 512}))
    assert 21 < render_seconds(large) < 19 + 4


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [
        ({"samples": 4}, 0.4, 0.75),  # colour without the probes, at four instead of ten samples
        ({"samples": 48, "min_samples": 48}, 2.5, 5.0),
        ({"quality": 33.0}, 0.5, 0.9),
        ({"denoise": False}, 0.5, 1.0),
        ({"seed": 1}, 0.999, 1.001),
        ({"light_strength": 1.0}, 0.999, 1.001),
    ],
)
def test_measured_seconds_follow_the_samples(dataset, change, low, high) -> None:
    cost = dataset.estimate(changed(CONFIG, render=change))
    assert low < render_seconds(cost) / 20 < high


def test_another_rig_takes_the_measurements_and_shares_of_the_former(tmp_path: Path) -> None:
    dataset = Catalogued(tmp_path)
    dataset.add(30, *STAGE_NAMES)
    dataset.add(70, "fetch", "inspect", "measure", **TOO_SMALL)
    stages = dataset.estimate(changed(CONFIG, rig="one2345")).stages
    assert stages["measure"].objects == 100
    assert stages["render"].objects == pytest.approx(30, rel=0.2)  # not the first estimate, 70
    each = stages["render"].core_hours * 3600 / stages["render"].objects
    assert 20 / 8 < each < 20 / 2  # a quarter of the views, from closer
    assert stages["measure"].core_hours < 100 * 2.0 / 3600


def test_results_that_stay_valid_are_not_counted_again(dataset: Catalogued) -> None:
    cost = dataset.estimate(changed(CONFIG, render={"seed": 1}))
    assert {name: stage.objects for name, stage in cost.stages.items()} == {
        "render": 40.0,
        "pack": 40.0,
    }
    points = dataset.estimate(changed(CONFIG, surface={"seed": 1}))
    assert list(points.stages) == ["geometry"]


def test_after_another_file_everything_is_counted(dataset: Catalogued) -> None:
    decisions = dataset.decisions(CONFIG)
    refetched = dataclasses.replace(decisions, stage=np.zeros_like(decisions.stage))
    cost = estimate_rest(np.arange(40), refetched, decisions.columns, CONFIG)
    assert {name: stage.objects for name, stage in cost.stages.items()} == dict.fromkeys(
        STAGE_NAMES, 40.0
    )


def test_an_object_that_was_dropped_is_expected_to_be_dropped_again(tmp_path: Path) -> None:
    dataset = Catalogued(tmp_path)
    dataset.add(10, *STAGE_NAMES)
    dataset.add(30, "fetch", "inspect", "measure", **TOO_SMALL)
    shells = changed(CONFIG, render={"cull_shells": False})
    objects = {n: s.objects for n, s in dataset.estimate(shells).stages.items()}
    assert objects == {"measure": 40.0, "render": 10.0, "geometry": 10.0, "pack": 10.0}
    # The present filters count, not those of the time.
    lenient = changed(shells, filters={"occupancy": {"enabled": False}})
    assert dataset.estimate(lenient).stages["render"].objects == 40.0


def test_objects_that_wait_count_as_having_passed(tmp_path: Path) -> None:
    """A build that was stopped early has few renders, but not because few objects get there."""
    dataset = Catalogued(tmp_path)
    dataset.add(100, "fetch", "inspect", "measure")
    dataset.add(100)
    stages = dataset.estimate(CONFIG).stages
    assert stages["render"].objects > 185


def test_settings_that_are_not_remembered_fall_back_to_the_first_estimate(dataset) -> None:
    """An aborted refresh: build.json has settings under which nothing was made."""
    large = changed(CONFIG, render={"resolution": 1024})
    write_build(dataset.root, {"config": large.dump()})
    cost = dataset.estimate(large)
    assert render_seconds(cost) == pytest.approx(RENDER.estimate(large).seconds)
    assert cost.stages["render"].range_factor > 2


def test_the_range_narrows_with_measurements(tmp_path: Path) -> None:
    """A first estimate is uncertain, four objects hardly less, and four hundred much less."""
    factors = [first_estimate(CONFIG, 1000).stages["render"].range_factor]
    for num in (4, 400):
        dataset = Catalogued(tmp_path / str(num))
        dataset.add(num, *STAGE_NAMES)
        dataset.add(1000, "fetch", "inspect", "measure")
        factors.append(dataset.estimate(CONFIG).stages["render"].range_factor)
    assert factors[0] > factors[1] > factors[2] > 1.0
    assert factors[0] > 2.5
    assert factors[2] < 1.2


def test_the_range_contains_the_chance_of_a_few_objects() -> None:
    few, many = (first_estimate(CONFIG, num).stages["render"].range_factor for num in (5, 5000))
    assert few > 1.5 * many


def test_the_ranges_are_in_the_json() -> None:
    cost = first_estimate(CONFIG, 1000)
    values = cost.to_dict()
    for name in ("core_hours", "gpu_hours", "bytes"):
        low, high = values[f"{name}_range"]
        assert low <= values[name] <= high
    assert Cost.from_dict(values).range_of("core_hours") == pytest.approx(
        tuple(values["core_hours_range"]), abs=0.01
    )


def test_the_remaining_work_is_that_of_the_pending_objects(tmp_path: Path) -> None:
    dataset = Catalogued(tmp_path)
    dataset.add(500, *STAGE_NAMES)
    dataset.add(10, "fetch", "inspect", "measure")
    lost = {"status": "failed", "kind": "storage", "message": "m"}
    dataset.add(1, "fetch", "inspect", "measure", "render", render=lost)
    decisions = dataset.decisions(CONFIG)
    work = remaining_work(decisions, decisions.columns, CONFIG)
    assert work == pytest.approx(10 * (20.0 + 0.5 + 0.1 + OPENING_SECONDS), rel=0.02)


CHANGES = st.fixed_dictionaries(
    {
        "resolution": st.integers(16, 2048),
        "samples": st.integers(1, 128),
        "min_samples": st.integers(1, 16),
        "denoise": st.booleans(),
    }
)


@given(CHANGES, st.sampled_from(["resolution", "samples"]), st.integers(1, 512))
def test_more_pixels_or_samples_never_cost_less(render, name, more) -> None:
    less, much = (
        first_estimate(changed(CONFIG, render=values), 10)
        for values in (render, render | {name: render[name] + more})
    )
    assert much.core_hours >= less.core_hours
    assert much.bytes >= less.bytes


def test_more_views_at_the_same_distance_cost_more() -> None:
    by_rig = {name: first_estimate(changed(CONFIG, rig=name), 10) for name in RIGS}
    assert RIGS["fixed48"].num_views > RIGS["lrm32"].num_views > RIGS["one2345"].num_views
    seconds = [render_seconds(by_rig[name]) for name in ("fixed48", "lrm32", "one2345")]
    assert seconds == sorted(seconds, reverse=True)


@pytest.fixture(scope="module")
def at_every_stage(tmp_path_factory: pytest.TempPathFactory) -> Catalogued:
    """Return a dataset with an object after each stage, and one that a filter dropped."""
    dataset = Catalogued(tmp_path_factory.mktemp("catalog"))
    for num_stages in range(len(STAGE_NAMES) + 1):
        dataset.add(1, *STAGE_NAMES[:num_stages])
    dataset.add(1, "fetch", "inspect", "measure", **TOO_SMALL)
    return dataset


@settings(deadline=None, max_examples=20)
@given(CHANGES, st.sampled_from(sorted(RIGS)))
def test_an_object_never_costs_more_than_from_its_download_on(at_every_stage, render, rig) -> None:
    decisions = at_every_stage.decisions(changed(CONFIG, render=render, rig=rig))
    refetched = dataclasses.replace(decisions, stage=np.zeros_like(decisions.stage))
    shares = measured_shares(decisions, decisions.columns, [0.5] * len(decisions.stages))
    rows = np.flatnonzero(decisions.stage >= 0)
    assert len(rows)
    for row in rows:
        rest, whole = (
            expected_objects(
                decisions.stages, routes(np.array([row]), which, decisions.columns), shares
            )
            for which in (decisions, refetched)
        )
        for name in rest:
            assert rest[name].objects <= whole[name].objects <= 1
