"""Columns of the catalog are declared once and described in the docs; stages are validated."""

import re

import pyarrow as pa
import pytest

from core.errors import BadInput
from dataset.catalog.event_columns import LIST, EventColumns
from dataset.columns import CATEGORY, integer, text
from filters.chain import CHAIN
from pipelines.building.build_config import BuildConfig
from pipelines.building.projection import all_columns, columns_for_counts, projection
from pipelines.building.stages.fetch import FETCH, SHA256
from pipelines.building.stages.geometry import GEOMETRY
from pipelines.building.stages.pack import PACK
from pipelines.building.stages.queues import PACK_QUEUE, RENDER_QUEUE, Queue
from pipelines.building.stages.registry import STAGES, StageRegistry
from pipelines.building.stages.render import RENDER
from pipelines.building.stages.stage import ResultFile, Stage, StoredBytes
from pipelines.selection.decided_columns import DECIDED
from tests.support.paths import REPOSITORY

PAGE = REPOSITORY / "docs/reference/columns.md"
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
    assert projection().digest == "ffdf5619ddd549fb"


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
    decided = [(name, "text", meaning) for name, meaning in DECIDED.items()]
    common = [(c.name, TYPES[c.type], c.meaning) for c in common_columns()]
    own = [
        (column.key, TYPES[column.type], column.meaning)
        for column in all_columns()
        if column.name not in {shared.name for shared in common_columns()}
    ]
    assert rows == decided + common + own


def common_columns():
    events = EventColumns("any")
    return [*events.of_event, *events.of_data]


def test_counts_read_no_details() -> None:
    names = columns_for_counts()
    assert "min_coverage" in names
    assert not {"caption", "staging", "shard"} & set(names)
    assert LIST.caption.detail


PATH = text("sdf", "path", "the grid")
BYTES = integer("sdf", "bytes", "its size")
OTHER_QUEUE = Queue(name="render", priority=7, resources=lambda config: {"CPU": 1.0})


def grid_stage(**changes: object) -> Stage:
    """Return a stage that writes a file per object, as another package would declare it."""
    values = {
        "name": "sdf",
        "inputs": ("fetch",),
        "input_version": SHA256,
        "queue": RENDER_QUEUE,
        "run": lambda state, context: {},
        "columns": (PATH, BYTES),
        "stores": StoredBytes(column=BYTES, label="sdf"),
        "file": ResultFile(location=(PATH,), folder="sdf"),
    }
    return Stage(**values | changes)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "fetch", "columns": ()}, "the column sdf.bytes is missing in its"),
        ({"name": "fetch", "columns": (), "stores": None, "file": None}, "the name is taken"),
        ({"name": "list", "columns": (), "stores": None, "file": None}, "the name is taken"),
        ({"name": "bytes", "columns": (), "stores": None, "file": None}, "lrm verify"),
        ({"inputs": ("fetsh",)}, "its input fetsh is not an earlier stage"),
        ({"inputs": ("pack",)}, "its input pack is not an earlier stage"),
        ({"run": None}, "needs either run or run_group"),
        ({"run": None, "run_group": lambda states, context: []}, "reserved for the project's"),
        ({"queue": PACK_QUEUE}, "is for groups of objects"),
        ({"queue": OTHER_QUEUE}, "differs from that of the stage render"),
        ({"columns": (PATH, BYTES, SHA256)}, "the column fetch.sha256 belongs to another stage"),
        ({"columns": (PATH, BYTES, text("sdf", "status", ""))}, "every stage has such a column"),
        ({"columns": (BYTES,)}, "the column sdf.path is missing in its"),
        ({"stores": StoredBytes(column=BYTES, label="samples")}, "its label samples is taken"),
        *[
            ({"file": ResultFile(location=(PATH,), folder=folder)}, "is taken, or is not a name")
            for folder in ("", ".", "catalog", "shards", "sdf/grids", "snapshots", "..")
        ],
        (
            {"file": ResultFile(location=(PATH,), folder="sdf", until="pakc")},
            "there is no stage pakc",
        ),
    ],
)
def test_an_invalid_stage_is_rejected_when_it_is_added(changes, problem) -> None:
    registry = StageRegistry((FETCH, RENDER, PACK))
    with pytest.raises(ValueError, match=problem):
        registry.add(grid_stage(**changes))
    assert [stage.name for stage in registry] == ["fetch", "render", "pack"]
    registry.add(grid_stage())
    assert [stage.name for stage in registry] == ["fetch", "render", "sdf", "pack"]


def test_a_stage_needs_its_inputs_in_the_build() -> None:
    registry = StageRegistry((FETCH, RENDER, GEOMETRY, PACK))
    registry.add(grid_stage(inputs=("geometry",)))
    config = BuildConfig.load({"source": "s", "root": "r", "stages": {"sdf": {}}})
    with pytest.raises(BadInput, match="stage sdf needs the stage geometry: add --geometry"):
        registry.enabled(config)
    both = BuildConfig.load(config.dump() | {"geometry": True})
    assert [stage.name for stage in registry.enabled(both)] == [
        "fetch",
        "render",
        "geometry",
        "sdf",
        "pack",
    ]


def test_only_registered_stages_can_be_enabled() -> None:
    config = BuildConfig.load({"source": "s", "root": "r", "stages": {"sdf": {}}})
    with pytest.raises(BadInput, match="--stages: sdf: this stage is not registered"):
        StageRegistry((FETCH, RENDER, PACK)).enabled(config)


def test_a_worker_keeps_the_stages_that_it_has() -> None:
    """Each task brings copies of the stages; using them would discard what the first one cached."""
    registry, first = StageRegistry((FETCH, RENDER, PACK)), grid_stage()
    registry.match([first])
    registry.match([grid_stage()])
    assert registry.added == (first,)
    registry.match([])
    assert registry.added == ()


def test_a_stage_that_is_not_enabled_reserves_nothing() -> None:
    config = BuildConfig.load({"source": "s", "root": "r"})
    gpu = Queue(name="gpu", priority=1, resources=lambda _: {"CPU": 1.0, "GPU": 1.0})
    registry = StageRegistry((FETCH, RENDER, PACK))
    registry.add(grid_stage(queue=gpu))
    assert [queue.name for queue in registry.queues(config)] == ["pack", "render", "fetch"]
    enabled = BuildConfig.load(config.dump() | {"stages": {"sdf": {}}})
    assert gpu in registry.queues(enabled)


def test_queues_that_free_space_come_first() -> None:
    config = BuildConfig.load({"source": "s", "root": "r"})
    assert [queue.name for queue in STAGES.queues(config)] == ["pack", "render", "fetch"]
