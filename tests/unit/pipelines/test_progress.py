"""The remaining time is estimated from work; progress is a table on a terminal, lines in a file."""

import contextlib
import os
import pty
import time

import pytest

from dataset.catalog.event_log import Event
from pipelines.building.build_metrics import BuildCounts
from pipelines.building.estimates.forecast import Forecast
from pipelines.building.progress import Progress

STAGES = ("fetch", "inspect", "render", "pack")
SECONDS = {"fetch": 0.1, "inspect": 0.1, "render": 20.0, "pack": 0.1}


def event(stage: str, status: str = "ok", seconds: float | None = None) -> Event:
    duration = SECONDS[stage] if seconds is None else seconds
    return Event(asset_id="objaverse:x", stage=stage, status=status, seconds=duration)


def fetched(forecast: Forecast, num: int, every: int, now: float) -> float:
    """Record that two workers fetch all objects, and return the time; one in `every` is kept."""
    for number in range(num):
        now += 0.2 / 2
        then = None if number % every else "render"
        forecast.record("fetch", [event("fetch"), event("inspect")], then, now)
    return now


def test_objects_that_are_dropped_early_do_not_shorten_the_estimate():
    forecast = Forecast(STAGES, started=0.0)
    forecast.add_waiting("fetch", 400)
    assert forecast.seconds_left(0.0) is None
    now = fetched(forecast, 400, every=4, now=0.0)
    # 300 of 400 objects are done in 40 seconds, but the duration of a render is not known.
    assert forecast.seconds_left(now) is None
    for _ in range(40):
        now += SECONDS["render"] / 2
        forecast.record("render", [event("render")], "pack", now)
    truth = 60 * SECONDS["render"] / 2
    assert forecast.seconds_left(now) == pytest.approx(truth, rel=0.1)


def test_the_estimate_extrapolates_from_the_first_objects():
    forecast = Forecast(STAGES, started=0.0)
    forecast.add_waiting("fetch", 1000)
    now = 0.0
    for number in range(100):
        passes = number % 4 == 0
        events = [event("fetch"), event("inspect")]
        forecast.record("fetch", events, "render" if passes else None, now)
        if passes:
            now += SECONDS["render"]
            forecast.record("render", [event("render")], "pack", now)
    # 225 of the 900 that still wait will be rendered, one at a time.
    assert forecast.seconds_left(now) == pytest.approx(225 * SECONDS["render"], rel=0.05)


def test_more_workers_count_as_soon_as_they_work():
    forecast = Forecast(STAGES, started=0.0, window=100.0)
    forecast.add_waiting("render", 10_000)
    now = 0.0
    for workers in (1, 10):
        for _ in range(20 * workers):
            now += SECONDS["render"] / workers
            forecast.record("render", [event("render")], "pack", now)
    left = 10_000 - 220
    assert forecast.seconds_left(now) == pytest.approx(left * SECONDS["render"] / 10, rel=0.1)
    assert forecast.seconds_left(now + 1000) is None


def test_the_rows_add_up():
    forecast = Forecast(STAGES, started=0.0)
    forecast.add_waiting("fetch", 10)
    forecast.add_waiting("render", 2)
    forecast.record("fetch", [event("fetch"), event("inspect", "failed")], None, 60.0)
    forecast.record("fetch", [event("fetch"), event("inspect")], "render", 60.0)
    forecast.record("render", [event("render", seconds=10)], "pack", 120.0)
    rows = {row.stage: row for row in forecast.rows(120.0)}
    assert {stage: row.waiting for stage, row in rows.items()} == {
        "fetch": 8,
        "inspect": 0,
        "render": 2,
        "pack": 1,
    }
    assert (rows["inspect"].done, rows["inspect"].failed) == (1, 1)
    assert rows["render"].mean_seconds == 10
    assert rows["pack"].mean_seconds is None
    assert rows["fetch"].per_minute == pytest.approx(1.0)
    assert forecast.objects_per_minute(120.0) == pytest.approx(0.5)


def test_a_sample_lost_before_packing_no_longer_waits():
    """The packer reports an earlier stage's failure for an object in its queue."""
    forecast = Forecast(STAGES, started=0.0)
    forecast.add_waiting("pack", 1)
    forecast.record("pack", [event("render", "failed", seconds=0)], None, 1.0)
    assert [row.waiting for row in forecast.rows(1.0)] == [0]
    assert forecast.seconds_left(1.0) == 0


def show(terminal: bool, waiting_for: str = "", ticks: int = 1) -> str:
    """Return what a build prints on a terminal or into a file."""
    reader, writer = pty.openpty() if terminal else os.pipe()
    with open(writer, "w") as stderr, contextlib.redirect_stderr(stderr):
        progress = Progress(STAGES)
        progress.add_waiting("fetch", 2)
        time.sleep(0.3)
        progress.record("fetch", [event("fetch", seconds=0.5)], "render")
        counts = BuildCounts(total=2, finals={"dropped": 1}, unpacked=1)
        for _ in range(ticks):
            progress.tick(lambda: counts, lambda: waiting_for)
        progress.done(BuildCounts(total=2, finals={"dropped": 1, "kept": 1}))
        progress.close()
    text = b""
    # At the end, a terminal raises an OSError and a pipe returns no bytes.
    with contextlib.suppress(OSError):
        while block := os.read(reader, 1 << 16):
            text += block
    os.close(reader)
    return text.decode()


def test_a_terminal_gets_a_table_and_a_file_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    table = show(terminal=True)
    for word in ("waiting", "seconds each", "fetch", "render", "1 dropped", "1 to pack", "left"):
        assert word in table
    assert show(terminal=False).splitlines() == ["[0:00:00] 2 of 2 objects done: 1 dropped, 1 kept"]


def test_a_terminal_shows_what_tasks_wait_for(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    line = "waiting for the cluster: a render task needs 1 GPU [0 of 0]"
    assert line in show(terminal=True, waiting_for=line)


def test_the_cursor_is_hidden_only_once_there_is_progress(monkeypatch):
    """A build that is refused before its work leaves the terminal as it was."""
    monkeypatch.setenv("TERM", "xterm")
    hidden = "\x1b[?25l"
    assert hidden in show(terminal=True)
    assert hidden not in show(terminal=True, ticks=0)
