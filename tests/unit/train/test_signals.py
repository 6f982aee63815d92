"""The response to signals: before and after the first step, twice, and in a blocked process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import Stopped
from tests.support.paths import REPOSITORY
from train.resilience.stopping import stop_request

PROGRAM = """
import hashlib, logging, sys, time
from pathlib import Path
from core.errors import LrmError
from core.signal_watch import before_forced_end
from train.monitoring.run_state import RunState, StartProgress
from train.resilience.signals import signal_handler

def sleep():
    time.sleep(30)

def swallow():
    for _ in range(300):
        try:
            time.sleep(0.1)
        except Exception:
            pass

def block():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2 * 10**9)  # the interpreter runs no handler meanwhile

def request():
    print("requested", flush=True)
    if work == "full":
        raise OSError(28, "No space left on device", "RUN/stop")
    if work == "hanging":
        time.sleep(30)

def has_progress():
    if progress == "hanging":
        time.sleep(30)
    return progress == "progress"

def report(code):
    print("ends with", code, flush=True)

work, progress, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
logging.basicConfig(format="%(message)s")
try:
    with before_forced_end(report), signal_handler(request, has_progress):
        with RunState(out, StartProgress(out)):
            print("ready", flush=True)
            {"swallow": swallow, "block": block}.get(work, sleep)()
except LrmError as error:
    print(type(error).__name__, flush=True)
    sys.exit(error.exit_code)
"""


def start(out: Path, work: str, progress: str, *starter: str) -> subprocess.Popen:
    program = subprocess.Popen(
        [*starter, sys.executable, "-c", PROGRAM, work, progress, str(out)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    time.sleep(0.2)  # until it works
    return program


def state(out: Path) -> str:
    return json.loads((out / "run_state.json").read_text())["state"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", ["sleep", "swallow", "block"])
def test_a_signal_before_the_first_step_ends_the_process_within_five_seconds(
    tmp_path, work, number
):
    """Also while a library ignores exceptions, or blocks the main thread."""
    program = start(tmp_path, work, "nothing")
    sent = time.monotonic()
    program.send_signal(number)
    out, errors = program.communicate(timeout=30)
    assert time.monotonic() - sent < 5
    assert program.returncode == 143
    assert "requested" not in out
    assert f"{number.name}: the run ends now: no step has ended" in errors
    assert errors.splitlines()[-1].endswith("; the same command continues")
    assert state(tmp_path) == "stopped"
    assert ("ends with 143" in out) == (work == "block")


@pytest.mark.parametrize("work", ["sleep", "block"])
def test_a_signal_after_a_step_is_answered_at_once_and_a_second_one_ends_the_process(
    tmp_path, work
):
    program = start(tmp_path, work, "progress")
    program.send_signal(signal.SIGINT)
    assert program.stdout is not None
    assert program.stdout.readline() == "requested\n"
    time.sleep(0.1)
    program.send_signal(signal.SIGINT)  # the launcher forwards it: the same request
    time.sleep(1.0)
    assert program.poll() is None
    program.send_signal(signal.SIGTERM)
    out, errors = program.communicate(timeout=5)
    assert program.returncode == 128 + signal.SIGTERM
    assert errors.count("the run ends after the current step with a checkpoint") == 1
    assert out == "ends with 143\n"
    assert state(tmp_path) == "stopped"


@pytest.mark.parametrize(
    ("work", "progress", "problem"),
    [
        ("full", "progress", "cannot write the stop file: [Errno 28] No space left on device"),
        ("hanging", "progress", ""),
        ("sleep", "hanging", ""),
    ],
)
def test_storage_that_fails_or_hangs_delays_neither_the_answer_nor_a_second_signal(
    tmp_path, work, progress, problem
):
    program = start(tmp_path, work, progress)
    program.send_signal(signal.SIGTERM)
    assert program.stderr is not None
    line = program.stderr.readline()
    assert line.startswith("SIGTERM: the run ends after the current step with a checkpoint; ")
    if problem:
        assert program.stderr.readline().startswith(problem)
    time.sleep(1.1)
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=5)
    assert program.returncode == 128 + signal.SIGINT


def test_a_signal_that_the_starter_has_disabled_stays_disabled(tmp_path):
    program = start(tmp_path, "sleep", "nothing", "sh", "-c", 'trap "" INT; exec "$@"', "sh")
    program.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert program.poll() is None
    program.send_signal(signal.SIGTERM)
    program.communicate(timeout=5)
    assert program.returncode == 143


def test_the_handlers_and_the_process_are_as_before_after_the_block(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with stop_request(tmp_path) as request:
        assert not request
        request.has_progress = True
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 5
        while not request and time.monotonic() < deadline:
            time.sleep(0.01)
        assert request
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(Stopped, match="before the first step"), stop_request(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1
