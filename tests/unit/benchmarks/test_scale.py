"""The tables on the scale page are the results of the formulas."""

from dataclasses import replace

import pytest

from benchmarks.speed.scale import MARKS, Inputs, limits, tables, work, write_page
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.registry import STAGES
from tests.support.paths import REPOSITORY

BUILD = BuildConfig(source="objaverse", root="r")
PAGE = REPOSITORY / "docs/notes/scale.md"


def test_the_tables_of_the_page_are_those_of_the_formulas():
    _, _, rest = PAGE.read_text().partition(MARKS[0])
    written, mark, _ = rest.partition(MARKS[1])
    assert mark
    assert written == tables(Inputs()), "python -m benchmarks scale --page docs/notes/scale.md"


def test_the_limits_follow_the_formulas_of_the_page():
    inputs = Inputs(objects=1000, cores=10, driver_tasks=100, commit_events=500)
    load = work(inputs, gpu=False)
    fetched, inspected, measured, rendered = 1000, 950, 475, 332.5
    seconds = {stage.name: stage.estimate(BUILD).seconds for stage in STAGES}
    core_seconds = 0.25 * (seconds["fetch"] * fetched + seconds["inspect"] * inspected)
    core_seconds += seconds["measure"] * measured
    core_seconds += (seconds["render"] + seconds["pack"]) * rendered
    tasks, shards = fetched + measured + rendered / 64, rendered / 64
    events = fetched + fetched + inspected + measured + 2 * rendered
    reads = 2 * (fetched + inspected + measured + rendered)
    changes = fetched + 2 * rendered + 8 * shards
    assert limits(load, inputs, 2, gpu=False) == pytest.approx(
        {
            "nodes": core_seconds / 3600 / 20,
            "driver": (tasks / 100 + events / 500) / 3600,
            "store": max(reads / 5500, changes / 3500) / 3600,
        }
    )
    assert load.bytes_in == 1000 * 12.5e6
    assert load.bytes_out == pytest.approx(load.bytes_in + rendered * 3.5e6)


def test_gpu_nodes_divide_their_time_between_renders_and_other_stages():
    inputs = replace(Inputs(), gpu_seconds=3.6)
    load = work(inputs, gpu=True)
    assert load.cost.gpu_hours == pytest.approx(266.0)
    rendering = 266_000 * STAGES["render"].estimate(BUILD).seconds / 3600
    rest = work(inputs, gpu=False).core_hours - rendering
    assert limits(load, inputs, 10, gpu=True)["nodes"] == pytest.approx(26.6 + rest / 160)


def test_a_page_without_marks_is_rejected(tmp_path):
    (tmp_path / "page.md").write_text("# Scale\n")
    with pytest.raises(ValueError, match="no marks"):
        write_page(tmp_path / "page.md", "")
