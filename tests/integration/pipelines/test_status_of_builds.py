"""`lrm status` while a build runs, after it was killed, and its time to go in work."""

import getpass
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.storage import Storage
from dataset.build_records import recorded
from dataset.catalog.event_log import Catalog, Event
from pipelines.building.estimates.throughput import recent_throughput
from tests.support.datasets import WITHOUT_BLENDER
from tests.support.lrm import run_lrm
from tests.support.paths import REPOSITORY

HOLD = """
import sys
from core.lock import exclusive_lock
from core.storage import Storage
with exclusive_lock(Storage(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def root(demo_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset whose build has ended; nothing in it is rendered."""
    root = tmp_path_factory.mktemp("status") / "root"
    words = ["--source", demo_source, "--limit", 3, *WITHOUT_BLENDER, "--root", root]
    assert run_lrm("build", *words).code == 0
    return root


@pytest.fixture(params=["lrm build"])
def writer(root: Path, request: pytest.FixtureRequest):
    """Start a process that holds the dataset's lock as a command does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), request.param],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def status(root: Path) -> dict:
    return run_lrm("status", "--root", root, "--json").json()


def test_the_running_command_is_named(root: Path, writer):
    running = status(root)
    assert running["building"]["command"] == "lrm build"
    assert running["building"]["pid"] == writer.pid
    assert set(running["building"]) == {"command", "user", "host", "pid", "since"}
    assert running["writer"] == running["building"]
    assert running["last_build"] == "running"
    text = run_lrm("status", "--root", root).out
    user, host = getpass.getuser(), running["building"]["host"]
    assert f"running: lrm build by {user} on {host} (process {writer.pid}" in text
    writer.kill()
    writer.wait()
    ended = status(root)
    assert (ended["building"], ended["writer"]) == (None, None)


@pytest.mark.parametrize("writer", ["lrm compact", "lrm build --filters-only"], indirect=True)
def test_another_command_that_writes_is_no_build(root: Path, writer):
    running = status(root)
    assert running["building"] is None
    assert running["writer"]["pid"] == writer.pid
    assert running["last_build"] == "ended"
    name = running["writer"]["command"]
    assert f"running: {name} by " in run_lrm("status", "--root", root).out


def test_a_build_that_was_killed_is_stopped(root: Path):
    assert status(root)["last_build"] == "ended"
    assert "no build is running" in run_lrm("status", "--root", root).out
    file = root / "build.json"
    before = file.read_text()
    file.write_text(json.dumps({k: v for k, v in json.loads(before).items() if k != "ended"}))
    try:
        assert status(root)["last_build"] == "stopped"
        text = run_lrm("status", "--root", root).out
        assert "the last one stopped before its end: the same command continues" in text
    finally:
        file.write_text(before)


def test_a_build_that_failed_says_why(root: Path):
    """The newest record of a build has the error; those of other commands do not count."""
    line = "2 objects left undone: storage 2 (disk [full]); free space"
    for number, command in enumerate(("lrm build", "lrm build --filters-only")):
        with recorded(Storage(str(root)), command, {}) as record:
            record["error"] = None if number else line
    files = sorted((root / "builds").iterdir())[-2:]
    try:
        assert (status(root)["last_build"], status(root)["last_error"]) == ("incomplete", line)
        assert f"the last one is incomplete: {line}\n" in run_lrm("status", "--root", root).out
    finally:
        for file in files:
            file.unlink()
    assert (status(root)["last_build"], status(root)["last_error"]) == ("ended", None)


def watch(root: Path, *words: str, stdout: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "pipelines.cli", "status", "--root", str(root)]
    return subprocess.Popen([*command, "--watch", *words], stdout=stdout, cwd=REPOSITORY)


def test_watch_ends_with_the_build(root: Path, writer):
    watcher = watch(root, "0.1", "--json", stdout=subprocess.PIPE)
    assert watcher.stdout is not None
    first = json.loads(watcher.stdout.readline())
    assert first["building"]["pid"] == writer.pid
    writer.kill()
    *_, last = watcher.stdout.read().splitlines()
    assert watcher.wait(30) == 0
    assert json.loads(last) == status(root)


def test_watch_redraws_a_terminal_until_it_is_interrupted(root: Path, writer):
    reader, terminal = pty.openpty()
    watcher = watch(root, "0.1", stdout=terminal)
    os.close(terminal)
    text, deadline = b"", time.monotonic() + 60
    while text.count(b"running:") < 3:
        assert time.monotonic() < deadline, text
        if select.select([reader], [], [], 1.0)[0]:
            text += os.read(reader, 1 << 16)
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(30) == 130
    assert b"\x1b[1A" in text  # moves the cursor up: a redraw
    # A short terminal shows only the first lines.
    assert text.index(b"running:") < text.index(b"recent work:") < text.index(b"funnel")
    os.close(reader)


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "nan", "inf"])
def test_a_watch_interval_is_positive(root: Path, seconds: str):
    answer = run_lrm("status", "--root", root, f"--watch={seconds}")
    assert answer.code == 2
    assert f"{seconds!r} is not a positive number of seconds" in answer.err


def test_the_time_to_go_counts_work_and_not_objects(tmp_path: Path):
    """Most objects end early; those that are pending need as much work as the rest."""
    catalog, ids = Catalog(Storage(str(tmp_path))), [f"objaverse:{i:032x}" for i in range(20)]
    catalog.commit([Event(asset_id=i, stage="list", content="c") for i in ids], "run", 1)
    time.sleep(0.2)
    dropped = [Event(asset_id=i, stage="inspect", content="c", seconds=0.01) for i in ids[:18]]
    rendered = Event(asset_id=ids[18], stage="render", content="c", seconds=30.0)
    catalog.commit([*dropped, rendered], "run", 2)
    recent = recent_throughput(catalog, 1, work=60.36)
    seconds = timedelta_of(recent["throughput"]).total_seconds()
    assert recent["throughput"]["objects"] == 19
    assert recent["seconds_to_go"] == pytest.approx(2 * seconds, abs=0.1)
    assert recent_throughput(catalog, 0, work=0.0)["seconds_to_go"] == 0.0


def timedelta_of(throughput: dict) -> timedelta:
    started, ended = (datetime.fromisoformat(throughput[key]) for key in ("started", "ended"))
    assert datetime.now(UTC) > ended > started
    return ended - started
