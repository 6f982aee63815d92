"""The record of a run's launcher: which process trains in a folder, and how its start ended."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from core.errors import BadInput, Stopped, WorkFailed
from tests.support.paths import REPOSITORY
from tests.support.run_files import step_line
from train.monitoring import run_state
from train.monitoring.run_state import RunState, StartProgress, StateRecord, read_state

PROGRAM = """
import sys
from pathlib import Path
from train.monitoring.run_state import RunState, StartProgress
out = Path(sys.argv[1])
with RunState(out, StartProgress(out)):
    print("ready", flush=True)
    sys.stdin.read()
"""


def claim(out) -> RunState:
    return RunState(out, StartProgress(out))


def test_a_second_start_is_refused_until_the_first_one_has_ended_or_was_killed(tmp_path):
    words = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    first = subprocess.Popen(words, cwd=REPOSITORY, **pipes)
    assert first.stdout is not None
    assert first.stdout.readline() == b"ready\n"
    record = read_state(tmp_path)
    assert record is not None
    assert (record.state, record.pid) == ("starting", first.pid)
    assert not record.has_vanished()
    with pytest.raises(BadInput, match=f"another command trains here .process {first.pid}"):
        claim(tmp_path).__enter__()
    assert read_state(tmp_path) == record
    first.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # it stays as a zombie
    assert record.has_vanished()
    with claim(tmp_path):
        pass
    first.communicate()


def of_another_machine(age: float) -> StateRecord:
    return StateRecord(
        state="running",
        host="far",
        pid=os.getpid(),
        kernel="another boot",
        started="1",
        since="2026-01-01",
        time=time.time() - age,
    )


def store(out, record: StateRecord) -> None:
    (out / run_state.STATE_FILE).write_text(json.dumps(dataclasses.asdict(record)))


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(run_state, "_HEARTBEAT_SECONDS", 0.5)


def test_the_launcher_on_another_machine_is_alive_while_it_renews_its_record(tmp_path, fast):
    store(tmp_path, of_another_machine(1.0))
    renewal = threading.Timer(0.5, store, (tmp_path, of_another_machine(0.0)))
    renewal.start()
    with pytest.raises(BadInput, match="another command trains here"):
        claim(tmp_path).__enter__()
    renewal.join()


def test_a_silent_launcher_on_another_machine_is_dead(tmp_path, fast):
    old = of_another_machine(100.0)
    assert old.has_vanished()
    store(tmp_path, old)
    with claim(tmp_path):
        pass
    recent = of_another_machine(1.0)
    assert not recent.has_vanished()
    store(tmp_path, recent)
    started = time.monotonic()
    with claim(tmp_path):
        assert 1.0 < time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (None, "done", ""),
        (Stopped("stopped at step 3"), "stopped", "stopped at step 3"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
        (WorkFailed("step 3: the disk is full\nmore"), "failed", "step 3: the disk is full"),
        (BadInput("ranks differ"), "failed", "ranks differ"),
    ],
)
def test_the_end_of_a_start_is_recorded(tmp_path, error, state, message):
    if error is None:
        with claim(tmp_path / "run"):
            pass
    else:
        with pytest.raises(type(error)), claim(tmp_path / "run"):
            raise error
    record = read_state(tmp_path / "run")
    assert record is not None
    assert (record.state, record.message) == (state, message)
    assert not record.has_vanished()


def test_a_start_is_running_once_it_has_finished_a_step(tmp_path, fast):
    def write(started: str, first_step: int, *steps: int) -> None:
        lines = "".join(map(step_line, steps))
        (tmp_path / "metrics.jsonl").write_text(lines)
        record = {"started": started, "first_step": first_step, "hosts": []}
        record["config"] = {"steps": 4}
        (tmp_path / "run.json").write_text(json.dumps(record))

    write("before", 0, 1, 2, 3)  # killed after step 3, with a checkpoint of step 2
    progress = StartProgress(tmp_path)
    assert not progress.has_steps()
    write("now", 2, 1, 2)
    assert not progress.has_steps()
    with RunState(tmp_path, progress):
        write("now", 2, 1, 2, 3)
        deadline = time.monotonic() + 10
        while (record := read_state(tmp_path)) is None or record.state != "running":
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert progress.has_steps()
    progress.restart()
    assert (progress.has_steps(), progress.num_restarts) == (False, 1)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"\xff", b"[" * 100_000),
        b'{"state": "running", "host": "a", "pid": 1, "kernel": "", "started": "", "since": "", '
        b'"time": "yesterday"}',
    ],
)
def test_a_damaged_record_is_a_warning(tmp_path, caplog, content):
    (tmp_path / "run_state.json").write_bytes(content)
    assert read_state(tmp_path) is None
    assert f"{tmp_path}/run_state.json: damaged" in caplog.text
