"""The end of a build for the programs around it: exit codes, last lines, metrics, the hook."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.datasets import WITHOUT_BLENDER, BuiltDataset
from tests.support.lrm import Answer, run_lrm
from tests.support.paths import REPOSITORY

HOOK = 'printf "%s\\n" "$LRM_OUTCOME" "$LRM_SUBJECT" "$LRM_MESSAGE" > {}'
BLOCKED = """
import ctypes
from pipelines.cli.command_end import CommandEnd
from pipelines.cli.stop_signals import StopSignals
end = CommandEnd()
mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with StopSignals(end.report_stop, end.is_reported):
    libc.pthread_mutex_lock(mutex)
    print("blocked", flush=True)
    libc.pthread_mutex_lock(mutex)
"""


def on_small_disk(folder: Path, size: str, *words: object) -> Answer:
    """Run `lrm` where `folder` is a file system of this size, which only the command sees."""
    folder.mkdir()
    mount = f'mount -t tmpfs -o size={size} none {folder} && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    process = subprocess.run(
        [*command, sys.executable, "-m", "pipelines.cli", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    if process.stderr.startswith("unshare: "):
        pytest.skip("this system has no user namespaces")
    return Answer(process.returncode, process.stdout, process.stderr)


def test_a_full_disk_below_the_root_fails_the_build(demo_source: Path, tmp_path: Path):
    """The catalog fits on the disk, the copies of the GLB files do not."""
    disk, told = tmp_path / "disk", tmp_path / "told"
    words = ["--source", demo_source, "--limit", 2, "--root", disk / "root", *WITHOUT_BLENDER]
    # The disk is gone once the command has ended.
    history = f"{sys.executable} -m pipelines.cli history --json --root {disk / 'root'}"
    hook = f"{HOOK.format(told)}; {history} > {tmp_path / 'history'}"
    words += ["--keep-raw", "true", "--execution.attempts", 1, "--notify", hook]
    answer = on_small_disk(disk, "100k", "build", *words)
    assert answer.code == 1, answer.err
    assert re.search(r"failed +storage +2 ", answer.out)
    line = answer.err.splitlines()[-1]
    assert line.startswith("lrm build: error: 2 objects left undone: storage 2 (fetch: [Errno 28]")
    assert f"No space left on device: '{disk}/root/raw/" in line
    assert "free space" in line
    assert told.read_text().splitlines() == [
        "failed",
        f"lrm build {disk}/root",
        line.removeprefix("lrm build: "),
    ]
    (row,) = json.loads((tmp_path / "history").read_text())["builds"]
    assert (row["state"], row["failures"]) == ("incomplete", {"storage": 2})
    assert row["error"] == line.removeprefix("lrm build: error: ")


def test_a_disk_that_is_full_at_the_start_is_no_bad_input(demo_source: Path, tmp_path: Path):
    disk = tmp_path / "disk"
    words = ["--source", demo_source, "--limit", 2, "--root", disk / "root", *WITHOUT_BLENDER]
    answer = on_small_disk(disk, "4k", "build", *words)
    assert (answer.code, answer.err.splitlines()[-1]) == (
        1,
        f"lrm build: error: {disk}/root/build.json: cannot write here: No space left on device; "
        "free space on this disk, and run the same command again",
    )


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def scrape(port: int) -> str:
    """Return the metrics of a build, or an empty string before it serves them."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            return response.read().decode()
    except OSError:
        return ""


def test_a_build_that_waits_for_its_cluster_serves_metrics_and_answers_signals(
    ray_address: str, demo_source: Path, tmp_path: Path
):
    port, told = free_port(), tmp_path / "told"
    words = ["--source", demo_source, "--limit", 2, "--root", tmp_path / "root", *WITHOUT_BLENDER]
    words += ["--address", ray_address, "--execution.fetch-resources", "{nowhere: 1}"]
    words += ["--metrics-port", port, "--notify", HOOK.format(told)]
    build = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "build", *map(str, words)],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while "lrm_queue_length" not in (text := scrape(port)):
        assert build.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    assert 'lrm_objects{state="pending"} 2.0' in text
    assert 'lrm_queue_length{place="in_flight",queue="fetch"} 2.0' in text
    stopped = time.monotonic()
    build.send_signal(signal.SIGTERM)
    assert build.wait(30) == 143
    assert time.monotonic() - stopped < 8  # 5 seconds, on a busy machine
    line = "stopped; the same command continues"
    assert build.stderr.read().splitlines()[-1] == f"lrm build: {line}"
    assert told.read_text().splitlines() == ["stopped", f"lrm build {tmp_path}/root", line]


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "stopped"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_library_that_does_not_return_cannot_delay_the_answer(number, code, word):
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKED],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "blocked\n"
    time.sleep(0.5)  # until the main thread is in the library
    sent = time.monotonic()
    process.send_signal(number)
    line = process.stderr.readline()
    assert time.monotonic() - sent < 2.5
    assert line == f"lrm: {word}; the same command continues\n"
    assert process.wait(30) == code
    assert time.monotonic() - sent < 8


@pytest.mark.parametrize(
    ("command", "line"),
    [("inspect", "stopped"), ("remove", "stopped; the same command continues")],
)
def test_only_a_command_that_writes_is_said_to_continue(
    built_dataset: BuiltDataset, command: str, line: str
):
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", command, "--root", built_dataset.root, "--from=-"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    # Number and first argument of the system call in which the process waits: reading 0.
    while Path(f"/proc/{process.pid}/syscall").read_text().split()[1:2] != ["0x0"]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, problem = process.communicate(timeout=30)
    assert (process.returncode, problem) == (143, f"lrm {command}: {line}\n")


def test_refused_settings_run_the_hook_and_a_port_in_use_is_refused(
    demo_source: Path, tmp_path: Path
):
    told, root = tmp_path / "told", tmp_path / "root"
    words = ["--source", demo_source, "--root", root, *WITHOUT_BLENDER]
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        words += ["--metrics-port", port, "--notify", HOOK.format(told)]
        answer = run_lrm("build", *words)
    assert answer.code == 2
    assert answer.err == (
        f"lrm build: error: --metrics-port {port}: cannot serve metrics: Address already in use; "
        "give another port\n"
    )
    assert told.read_text().splitlines()[0] == "refused"
    assert not root.exists()


def test_a_port_in_use_is_refused_before_nodes_are_requested(
    ray_address: str, demo_source: Path, tmp_path: Path, monkeypatch
):
    requests: list[int] = []
    monkeypatch.setattr(
        "ray.autoscaler.sdk.request_resources", lambda bundles: requests.append(len(bundles))
    )
    words = ["--source", demo_source, "--limit", 1, "--root", tmp_path / "root", *WITHOUT_BLENDER]
    words += ["--address", ray_address, "--execution.autoscaler-renders", 3]
    with socket.create_server(("", 0)) as server:
        answer = run_lrm("build", *words, "--metrics-port", server.getsockname()[1])
    assert (answer.code, requests) == (2, [])
    assert "--metrics-port" in answer.err


@pytest.mark.parametrize("port", ["0", "-1", "65536", "x", "1.5"])
def test_a_port_is_a_number_of_a_port(tmp_path: Path, port: str):
    answer = run_lrm("build", "--source", "x", "--root", tmp_path, f"--metrics-port={port}")
    assert answer.code == 2
    assert f"{port!r} is not a port" in answer.err


def test_a_full_temporary_folder_is_no_bad_input(demo_source: Path, tmp_path: Path, monkeypatch):
    disk = tmp_path / "disk"
    monkeypatch.setenv("TMPDIR", str(disk))
    words = ["--source", demo_source, "--root", tmp_path / "root", *WITHOUT_BLENDER]
    answer = on_small_disk(disk, "500k", "build", *words)
    assert answer.code == 1
    assert answer.err.startswith(f"lrm build: error: TMPDIR={disk}: cannot write temporary files")
    assert ": No space left on device; free" in answer.err
    assert not (tmp_path / "root").exists()
