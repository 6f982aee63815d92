"""The response to signals: before and after the first step, twice, and in a blocked process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from core.errors import Stopped
from tests.support.paths import REPOSITORY
from train.resilience.stopping import stop_request

PROGRAM = """
import hashlib, logging, sys, time
from core.errors import LrmError
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

work, has_progress = sys.argv[1], sys.argv[2] == "progress"
logging.basicConfig(format="%(message)s")
try:
    with signal_handler(lambda: print("requested", flush=True), lambda: has_progress):
        print("ready", flush=True)
        {"sleep": sleep, "swallow": swallow, "block": block}[work]()
except LrmError as error:
    print(type(error).__name__, flush=True)
    sys.exit(error.exit_code)
"""


def start(work: str, progress: str) -> subprocess.Popen:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, work, progress],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    time.sleep(0.2)  # until it works
    return program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", ["sleep", "swallow", "block"])
def test_a_signal_before_the_first_step_ends_the_process_within_five_seconds(work, number):
    """Also while a library ignores exceptions, or blocks the main thread."""
    program = start(work, "nothing")
    sent = time.monotonic()
    program.send_signal(number)
    out, errors = program.communicate(timeout=30)
    assert time.monotonic() - sent < 5
    assert program.returncode == 143
    assert "requested" not in out
    assert f"{number.name}: the run ends now: no step has ended" in errors


@pytest.mark.parametrize("work", ["sleep", "block"])
def test_a_signal_after_a_step_is_answered_at_once_and_a_second_one_ends_the_process(work):
    program = start(work, "progress")
    program.send_signal(signal.SIGINT)
    assert program.stdout is not None
    assert program.stdout.readline() == "requested\n"
    time.sleep(0.1)
    program.send_signal(signal.SIGINT)  # the launcher forwards it: the same request
    time.sleep(1.0)
    assert program.poll() is None
    program.send_signal(signal.SIGTERM)
    _, errors = program.communicate(timeout=5)
    assert program.returncode == 128 + signal.SIGTERM
    assert errors.count("the run ends after the current step with a checkpoint") == 1


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
