"""Metrics over HTTP, and the hook that is run when a command ends."""

import os
import socket
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from core.errors import BadInput, Stopped, WorkFailed
from core.monitoring.endpoint import Metric, serve_metrics
from core.monitoring.notify import notify_at_end, run_hook


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        return response.read().decode()


def test_metrics_are_served_while_the_block_runs():
    values = iter([1, 2])

    def collect():
        number = next(values)
        for state in ("kept", "dropped"):
            yield Metric(name="lrm_objects", help="Objects.", value=number, labels={"state": state})
        yield Metric(name="lrm_done_total", help="Done.", value=7, kind="counter")

    port = free_port()
    with serve_metrics(port, collect):
        first, second = scrape(port), scrape(port)
    assert 'lrm_objects{state="dropped"} 1.0' in first
    assert 'lrm_objects{state="dropped"} 2.0' in second
    assert "# TYPE lrm_done_total counter\nlrm_done_total 7.0" in second
    with pytest.raises(OSError):
        scrape(port)
    with serve_metrics(port, lambda: ()):  # the port is free again
        assert scrape(port) == ""


def test_a_port_in_use_is_refused():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        refused = pytest.raises(BadInput, match=f"^--metrics-port {port}: .*in use")
        with refused, serve_metrics(port, lambda: ()):
            raise AssertionError("the block must not start")


def test_without_a_port_nothing_is_served():
    threads = threading.active_count()
    with serve_metrics(None, lambda: ()):
        assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "done"),
        (WorkFailed("the disk is full"), "failed"),
        (RuntimeError("a bug"), "failed"),
        (Stopped("stopped at step 3"), "stopped"),
        (KeyboardInterrupt("Ctrl-C"), "stopped"),
        (BadInput("/x: not a folder"), "refused"),
    ],
)
def test_the_hook_receives_the_outcome(tmp_path: Path, error, outcome):
    command = f'printf "%s|%s|%s" "$LRM_OUTCOME" "$LRM_SUBJECT" "$LRM_MESSAGE" > {tmp_path}/out'
    expected = pytest.raises(type(error)) if error else pytest.MonkeyPatch.context()
    with expected, notify_at_end(command, "lrm build /root"):
        if error:
            raise error
    assert (tmp_path / "out").read_text() == f"{outcome}|lrm build /root|{error or ''}"


def test_a_hook_that_fails_or_hangs_is_a_warning(tmp_path: Path, capfd):
    run_hook("exit 3", "lrm build", "done", "")
    assert "warning: the notify command ended with exit code 3" in capfd.readouterr().err
    started = time.monotonic()
    run_hook(f"sleep 60 & echo $! > {tmp_path}/pid; wait", "lrm build", "done", "", seconds=0.5)
    assert time.monotonic() - started < 10
    assert "ran for more than 0.5 seconds and was killed" in capfd.readouterr().err
    with pytest.raises(ProcessLookupError):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            os.kill(int((tmp_path / "pid").read_text()), 0)
            time.sleep(0.05)


def test_the_hook_writes_to_standard_error_and_accepts_any_message(capfd):
    run_hook('echo "$LRM_MESSAGE"', "lrm build", "failed", "a\0b\udc80")
    output = capfd.readouterr()
    assert (output.out, output.err.startswith("ab")) == ("", True)
