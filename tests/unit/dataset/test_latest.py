"""The last event of each object: base files and the tail of the log equal the whole log."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from dataset.catalog.latest import LatestEvents, Projection, align

PROJECTION = Projection(
    version="1",
    types={"fetch": {"size": pa.int64()}, "render": {"names": pa.list_(pa.string())}},
    read=lambda stage, status, data: dict(data) if status == "ok" else {},
)
STAGE_RIGS = [("fetch", ""), ("render", "lrm32"), ("render", "orbit21")]


def latest(root: Storage, projection: Projection = PROJECTION) -> LatestEvents:
    return LatestEvents(root, Catalog(root), projection)


def rows(tables: dict) -> dict:
    """Return status, content and size of every object, by stage, rig and asset id."""
    return {
        (*stage_rig, row["asset_id"]): (row["status"], row["content"], row.get("size"))
        for stage_rig, table in tables.items()
        for row in table.to_pylist()
    }


def test_an_empty_catalog_has_empty_tables(tmp_path):
    (table,) = latest(Storage(str(tmp_path))).tables([("fetch", "")]).values()
    assert table.num_rows == 0
    assert "size" in table.column_names


EVENTS = st.builds(
    lambda asset, stage_rig, content, ok: Event(
        asset_id=f"objaverse:{asset}",
        stage=stage_rig[0],
        rig=stage_rig[1],
        content=str(content),
        status="ok" if ok else "failed",
        data={"size": content} if stage_rig[0] == "fetch" else {"names": [str(content)]},
    ),
    st.sampled_from("abcde"),
    st.sampled_from(STAGE_RIGS),
    st.integers(0, 99),
    st.booleans(),
)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.lists(EVENTS, min_size=1, max_size=6), st.booleans()), max_size=5))
def test_the_last_event_counts_wherever_the_base_ends(tmp_path_factory, batches):
    root = Storage(str(tmp_path_factory.mktemp("latest")))
    expected = {}
    for number, (events, renew) in enumerate(batches, start=1):
        Catalog(root).commit(events, "run", number)
        for event in events:
            size = event.data.get("size") if event.status == "ok" else None
            key = (event.stage, event.rig, event.asset_id)
            expected[key] = (event.status, event.content, size)
        if renew:
            latest(root).update_base()
        assert rows(latest(root).tables(STAGE_RIGS)) == expected
        chosen = ["objaverse:a", "objaverse:c"]
        some = latest(root).tables(STAGE_RIGS, only=pc.field("asset_id").isin(chosen))
        assert rows(some) == {key: value for key, value in expected.items() if key[2] in chosen}
    assert len(root.list_files("latest")) <= 2 * len(STAGE_RIGS) + 1


def test_another_projection_reads_the_log_again(tmp_path):
    root = Storage(str(tmp_path))
    Catalog(root).commit([Event(asset_id="a:1", stage="fetch", data={"size": 3})], "run", 1)
    latest(root).update_base()
    doubled = Projection(
        version="2",
        types=PROJECTION.types,
        read=lambda stage, status, data: {"size": 2 * data["size"]},
    )
    assert latest(root, doubled).tables([("fetch", "")])["fetch", ""]["size"].to_pylist() == [6]
    assert latest(root).tables([("fetch", "")])["fetch", ""]["size"].to_pylist() == [3]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"seq": 5}', None])
def test_damaged_or_missing_base_files_are_replaced_by_the_log(tmp_path, damage):
    root = Storage(str(tmp_path))
    Catalog(root).commit([Event(asset_id="a:1", stage="fetch", data={"size": 3})], "run", 1)
    latest(root).update_base()
    if damage is None:
        for path in tmp_path.glob("latest/*.parquet"):
            path.unlink()
    else:
        root.write("latest/index.json", damage)
    assert latest(root).tables([("fetch", "")])["fetch", ""]["size"].to_pylist() == [3]


def test_a_late_event_of_another_writer_is_not_lost(tmp_path):
    """It is committed after the base files were written, with an earlier sequence number."""
    root = Storage(str(tmp_path))
    late = Catalog(root)
    Catalog(root).commit([Event(asset_id="a:1", stage="fetch", content="1")], "run", 1)
    late.files()
    stale = late._table
    for number in range(2, 5):
        Catalog(root).commit([Event(asset_id="a:2", stage="fetch")], "run", number)
    latest(root).update_base()
    late._open = lambda: stale
    late.commit([Event(asset_id="a:1", stage="fetch", content="2")], "other", 1)
    table = latest(root).tables([("fetch", "")])["fetch", ""]
    assert table.filter(pc.equal(table["asset_id"], "a:1"))["content"].to_pylist() == ["2"]
    late.compact()
    latest(root).update_base()
    assert latest(root).tables([("fetch", "")])["fetch", ""].num_rows == 2


def test_align_orders_rows_by_the_ids():
    table = pa.table({"asset_id": ["b", "a"], "x": [2, 1]})
    aligned = align(pa.chunked_array([["a", "c", "b"]]), table)
    assert aligned["x"].to_pylist() == [1, None, 2]


def test_a_compacted_log_is_not_read_again(tmp_path, monkeypatch):
    """The merged file is new to the base files, but its events are not."""
    root = Storage(str(tmp_path))
    monkeypatch.setattr("dataset.catalog.event_log._COMPACT_FILES", 2)
    monkeypatch.setattr("dataset.catalog.event_log.LATE_VERSIONS", 1)
    for number in range(1, 8):
        size = {"size": number}
        Catalog(root).commit([Event(asset_id="a:1", stage="fetch", data=size)], "run", number)
    latest(root).update_base()
    Catalog(root).compact()
    read: list[int] = []
    counting = Projection(
        version="1",
        types=PROJECTION.types,
        read=lambda stage, status, data: read.append(data["size"]) or dict(data),
    )
    assert latest(root, counting).tables([("fetch", "")])["fetch", ""]["size"].to_pylist() == [7]
    assert len(read) <= 2
