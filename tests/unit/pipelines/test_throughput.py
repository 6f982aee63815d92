"""Objects per hour, computed from the commit times of events."""

from datetime import UTC, datetime, timedelta

import hypothesis
import hypothesis.strategies as st
import pyarrow as pa
import pytest

from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from pipelines.building.estimates.throughput import (
    OUTCOMES,
    builds,
    recent_throughput,
    timeline,
)

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def endings(*rows: tuple[str, float, str, str, int]) -> pa.Table:
    """Return a table of (run, hours since START, stage, status, objects)."""
    names = ["run", "time", "stage", "status", "objects"]
    columns = [list(column) for column in zip(*rows, strict=True)]
    columns[1] = [START + timedelta(hours=hours) for hours in columns[1]]
    table = pa.table(dict(zip(names, columns, strict=True)))
    return table.append_column("started", table["time"])


def test_a_build_that_only_listed_did_no_work():
    (pace,) = builds(
        endings(
            ("first", 0.0, "list", "ok", 500),
            ("first", 0.5, "pack", "ok", 30),
            ("first", 1.5, "inspect", "failed", 3),
            ("second", 9.0, "list", "ok", 7),
        )
    )
    assert pace.objects == 33
    assert pace.started == START
    assert pace.per_hour == pytest.approx(33 / 1.5)


def test_one_commit_has_no_rate():
    (pace,) = builds(endings(("run", 1.0, "pack", "ok", 30)))
    assert pace.per_hour is None


def test_outcomes_have_their_own_bars():
    bars = timeline(
        endings(
            ("run", 0.0, "list", "ok", 500),
            ("run", 0.001, "pack", "ok", 30),
            ("run", 0.001, "pack", "failed", 2),
            ("run", 0.02, "measure", "ok", 4),
        )
    )
    assert bars.started == START
    assert {name: sum(counts) for name, counts in bars.counts.items()} == {
        "packed": 30,
        "stopped": 4,
        "failed": 2,
    }
    assert bars.counts["packed"][3] == 30
    assert bars.counts["stopped"][-1] == 4


@hypothesis.given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.floats(0, 20_000),
            st.sampled_from(["list", "fetch", "pack"]),
            st.sampled_from(["ok", "failed"]),
            st.integers(1, 1000),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_no_object_is_lost_in_the_bars(rows):
    bars = timeline(endings(*rows))
    worked = sum(count for _, _, stage, _, count in rows if stage != "list")
    if not worked:
        assert bars is None
        return
    assert set(bars.counts) == set(OUTCOMES)
    assert sum(map(sum, bars.counts.values())) == worked
    assert bars.num_bars <= 97


def test_the_catalog_counts_an_object_once_per_run(tmp_path):
    catalog = Catalog(Storage(str(tmp_path)))
    assert catalog.outcomes().num_rows == 0
    assert recent_throughput(catalog, 3, 9.0) == {"throughput": None, "seconds_to_go": None}
    ids = [f"objaverse:{i:032x}" for i in range(4)]
    listed = [Event(asset_id=asset_id, stage="list", content="c") for asset_id in ids]
    catalog.commit(listed, "first", 1)
    catalog.commit([Event(asset_id=i, stage="fetch", content="c") for i in ids[:3]], "first", 2)
    catalog.commit([Event(asset_id=ids[0], stage="pack", content="c")], "first", 3)
    failed = Event(asset_id=ids[0], stage="render", content="c", status="failed")
    catalog.commit([failed], "second", 1)
    rows = [
        (row["run"], row["stage"], row["status"], row["objects"])
        for row in catalog.outcomes().to_pylist()
    ]
    assert sorted(rows) == [
        ("first", "fetch", "ok", 2),
        ("first", "list", "ok", 1),
        ("first", "pack", "ok", 1),
        ("second", "render", "failed", 1),
    ]
    assert [pace.objects for pace in builds(catalog.outcomes())] == [3, 1]
    last = catalog.outcomes(timedelta(0)).to_pylist()
    assert [row["run"] for row in last] == ["second"]
    assert recent_throughput(catalog, 3, 9.0)["throughput"]["objects"] == 1


def test_the_recent_outcomes_read_a_limited_number_of_events(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset.catalog.event_log._RECENT_EVENTS", 3)
    catalog = Catalog(Storage(str(tmp_path)))
    for batch in range(1, 8):
        catalog.commit([Event(asset_id=f"objaverse:{batch}", stage="fetch")], "run", batch)
    assert sum(catalog.outcomes()["objects"].to_pylist()) == 7
    assert sum(catalog.outcomes(timedelta(hours=1))["objects"].to_pylist()) == 3
