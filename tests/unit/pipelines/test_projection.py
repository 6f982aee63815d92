"""The columns of the catalog: declared once, and described on one page."""

import re

import pyarrow as pa
import pytest

from dataset.catalog.event_columns import LIST, EventColumns
from dataset.columns import CATEGORY
from filters.chain import CHAIN
from pipelines.building.projection import all_columns, columns_for_counts, projection
from pipelines.building.stages.fetch import FETCH, SHA256
from pipelines.building.stages.pack import PACK
from pipelines.building.stages.queues import RENDER_QUEUE
from pipelines.building.stages.registry import STAGES, StageRegistry
from pipelines.building.stages.render import RENDER
from pipelines.building.stages.stage import Stage
from tests.support.paths import REPOSITORY

PAGE = REPOSITORY / "docs/columns.md"
TYPES = {
    pa.string(): "text",
    CATEGORY: "text",
    pa.int32(): "integer",
    pa.int64(): "integer",
    pa.float64(): "number",
    pa.bool_(): "flag",
    pa.list_(pa.string()): "list of text",
    pa.list_(pa.float64()): "list of numbers",
    pa.map_(pa.string(), pa.float64()): "seconds by part",
}


def test_the_base_files_of_older_datasets_stay_valid() -> None:
    """Another digest makes every dataset read its whole log again."""
    assert projection().digest == "1610408efbe5d8b9"


def test_a_column_is_declared_once() -> None:
    keys = [column.key for column in all_columns()]
    assert len(set(keys)) == len(keys)
    assert {"list.caption", "fetch.sha256", "measure.min_coverage", "remove.status"} <= set(keys)


def test_every_fact_of_a_filter_is_a_column() -> None:
    columns = all_columns()
    for link in CHAIN:
        assert all(fact in columns for fact in link.facts)


def test_the_page_describes_every_column() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    common = [(c.name, TYPES[c.type], c.meaning) for c in common_columns()]
    own = [
        (column.key, TYPES[column.type], column.meaning)
        for column in all_columns()
        if column.name not in {shared.name for shared in common_columns()}
    ]
    assert rows == common + own


def common_columns():
    events = EventColumns("any")
    return [*events.of_event, *events.of_data]


def test_counts_read_no_details() -> None:
    names = columns_for_counts()
    assert "min_coverage" in names
    assert not {"caption", "staging", "shard"} & set(names)
    assert LIST.caption.detail


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "fetch"}, "the name is taken"),
        ({"name": "list"}, "the name is taken"),
        ({"inputs": ("fetsh",)}, "its input fetsh does not come before it"),
        ({"inputs": ("pack",)}, "its input pack does not come before it"),
        ({"run": None}, "needs either run or run_group"),
        ({"columns": (SHA256,)}, "the column fetch.sha256 is of another stage"),
    ],
)
def test_a_wrong_stage_is_refused_at_once(changes, problem) -> None:
    values = {"name": "sdf", "inputs": ("fetch",), "made_from": SHA256, "queue": RENDER_QUEUE}
    values |= {"run": lambda state, context: {}}
    registry = StageRegistry((FETCH, RENDER, PACK))
    with pytest.raises(ValueError, match=problem):
        registry.add(Stage(**values | changes))
    assert [stage.name for stage in registry] == ["fetch", "render", "pack"]
    registry.add(Stage(**values))
    assert [stage.name for stage in registry] == ["fetch", "render", "sdf", "pack"]


def test_queues_that_free_space_come_first() -> None:
    assert [queue.name for queue in STAGES.queues()] == ["pack", "render", "fetch"]
