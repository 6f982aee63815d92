"""The estimated cost of a build, and its comparison with the measured cost."""

from datetime import UTC, datetime, timedelta

import pytest

from core.errors import WorkFailed
from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from pipelines.building.build_config import BuildConfig, PriceConfig
from pipelines.building.estimates.cost import Cost, StageCost, money
from pipelines.building.estimates.estimate import first_estimate
from pipelines.building.estimates.spending import compare, estimate_record, measured_cost
from pipelines.building.stages.measure import MEASURE
from pipelines.building.stages.render import RENDER
from pipelines.cli.tables import show_plan, show_status
from tests.support.lrm import run_lrm

CPU = BuildConfig.load({"source": "s", "root": "r", "blender": {"threads": 4}})
GPU = BuildConfig.load(
    CPU.dump() | {"render": {"device": "gpu"}, "execution": {"render_gpus": 0.5}}
)
COST = Cost(
    stages={
        "measure": StageCost(objects=10, core_hours=2),
        "render": StageCost(objects=5, core_hours=6, gpu_hours=3, bytes=4e9),
    }
)


def events(stage: str, number: int, seconds: float, **fields) -> list[Event]:
    return [
        Event(asset_id=f"objaverse:{i:032}", stage=stage, seconds=seconds, **fields)
        for i in range(number)
    ]


def test_money_is_hours_times_prices_and_bytes_times_the_monthly_price() -> None:
    prices = PriceConfig(currency="EUR", core_hour=0.05, gpu_hour=2.0, gb_month=0.02)
    expected = {"currency": "EUR", "work": 6.4, "cores": 0.4, "gpus": 6.0, "per_month": 0.08}
    assert money(COST, prices) == expected
    assert money(COST, PriceConfig()) is None
    only_cores = money(COST, PriceConfig(core_hour=1.0))
    assert only_cores is not None
    assert (only_cores["work"], only_cores["per_month"], "gpus" in only_cores) == (8.0, None, False)


def test_an_estimate_survives_build_json_and_invalid_content_is_reported() -> None:
    assert Cost.from_dict(COST.to_dict()) == COST
    with pytest.raises(WorkFailed, match=r"build\.json: cannot read the estimate"):
        Cost.from_dict({"stages": {"render": {"wrong": 1}}})


def test_a_gpu_render_counts_its_share_of_the_gpu_and_no_cores() -> None:
    assert RENDER.reserves(CPU) == {"core_hours": 4.0}
    assert RENDER.reserves(GPU) == {"gpu_hours": 0.5}
    assert MEASURE.reserves(GPU) == {"core_hours": 4.0}


def test_the_spending_is_summed_from_the_events_since_a_time(tmp_path) -> None:
    catalog = Catalog(Storage(str(tmp_path)))
    catalog.commit(events("render", 7, 100.0, data={"bytes": 1}), "before", 1)
    since = datetime.now(UTC)
    rendered = events("render", 3, 36.0, data={"bytes": 1_000})
    failed = events("render", 2, 18.0, status="failed", kind="timeout", data={"bytes": 9})
    catalog.commit([*rendered, *failed, *events("list", 5, 0.0)], "now", 1)
    spent = measured_cost(catalog, since, CPU)
    assert spent.stages == {
        "render": StageCost(objects=5, core_hours=pytest.approx(4 * 0.04), bytes=3_000.0)
    }
    assert measured_cost(catalog, since + timedelta(days=1), CPU).stages == {}


def test_the_estimation_error_is_reported_only_after_the_build_has_ended(tmp_path) -> None:
    catalog = Catalog(Storage(str(tmp_path)))
    render = StageCost(objects=2, core_hours=0.08, bytes=2_000, range_factor=1.6)
    expected = Cost(stages={"render": render})
    build = {"estimate": estimate_record(expected)}
    catalog.commit(events("render", 3, 36.0, data={"bytes": 1_000}), "now", 1)
    running = compare(build, catalog, CPU)
    assert running is not None
    assert running["error"] == {"core_hours": None, "gpu_hours": None, "bytes": None}
    assert running["within_range"] == running["error"]
    priced = CPU.model_copy(update={"prices": PriceConfig(core_hour=1.0)})
    ended = compare(build | {"ended": "2026"}, catalog, priced)
    assert ended is not None
    assert ended["error"] == {"core_hours": 0.5, "gpu_hours": None, "bytes": 0.5}
    assert ended["within_range"] == {"core_hours": True, "gpu_hours": None, "bytes": True}
    assert ended["took"]["money"]["work"] == 0.12
    assert compare({"config": {}}, catalog, CPU) is None


def test_the_text_of_a_plan_shows_the_range_of_its_estimate(capsys) -> None:
    render = StageCost(objects=5, core_hours=12, bytes=4e9, range_factor=2.0)
    estimate = Cost(stages={"render": render}).to_dict() | {"money": None}
    show_plan({"work": {"render": {"new": 5}}, "estimate": estimate}, [])
    text = capsys.readouterr().out.splitlines()[-1]
    amounts = "12 core-hours (6 to 24), 0 GPU-hours, 4.0 GB (2.0 GB to 8.0 GB) stored"
    assert text == f"in total about {amounts}"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (36.0, "(50 % above the estimate, within its range)"),
        (60.0, "(150 % above the estimate)"),
        (6.0, "(75 % below the estimate)"),
    ],
)
def test_the_status_says_whether_the_cost_is_within_the_range(
    tmp_path, capsys, seconds, words
) -> None:
    catalog = Catalog(Storage(str(tmp_path)))
    render = StageCost(objects=2, core_hours=0.08, bytes=2_000, range_factor=1.6)
    build = {"estimate": estimate_record(Cost(stages={"render": render})), "ended": "2026"}
    catalog.commit(events("render", 3, seconds, data={"bytes": 1_000}), "now", 1)
    counts = dict.fromkeys(("listed", "kept", "pending", "unsure"), 0)
    empty: dict[str, dict] = {"dropped": {}, "failed": {}, "stages": {}, "bytes": {}}
    cost = compare(build, catalog, CPU)
    idle = {"throughput": None, "writer": None, "last_build": "ended"}
    show_status({**counts, **empty, **idle, "cost": cost})
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        (120.0, "pending: 2 objects, 0:02:00 left at the speed of that work"),
        (None, "pending: 2 objects"),
    ],
)
def test_the_status_names_the_time_to_go_only_if_it_is_known(capsys, seconds, line) -> None:
    recent = {"per_hour": 1.0, "objects": 1, "ended": "2026-11-30T16:00:00"}
    counts = {"listed": 2, "kept": 0, "pending": 2, "unsure": 0, "seconds_to_go": seconds}
    empty: dict[str, dict] = {"dropped": {}, "failed": {}, "stages": {}, "bytes": {}}
    rest = {"throughput": recent, "writer": None, "last_build": "ended", "cost": None}
    show_status({**counts, **empty, **rest})
    assert line in capsys.readouterr().out.splitlines()


def test_an_estimate_of_an_earlier_version_has_no_range() -> None:
    stages = {"render": {"objects": 2, "core_hours": 1.0, "gpu_hours": 0.0, "bytes": 5.0}}
    cost = Cost.from_dict({"stages": stages})
    assert cost.range_of("core_hours") == (1.0, 1.0)


def test_the_estimate_of_a_first_build_is_that_of_the_plan(demo_source, tmp_path):
    options = ["--source", demo_source, "--root", tmp_path / "root", "--render.resolution", "256"]
    plan = run_lrm("plan", *options, "--filters.caption.enabled", "false", "--json").json()
    config = BuildConfig.load(
        {"source": "s", "root": "r", "render": {"resolution": 256}, "prices": {}}
    )
    expected = first_estimate(config, plan["work"]["fetch"]["new"]).to_dict()
    assert plan["estimate"] == {**expected, "money": None}
