"""Builds as Ray jobs: submitted to a running head, refused, stopped, and gone on with."""

import os
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from core.storage import Storage
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import QUICK, Built, samples
from tests.support.fake_cluster import processes_with
from tests.support.lrm import run_lrm
from tests.support.paths import REPOSITORY

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A running head with its dashboard."""

    dashboard: str
    environment: dict[str, str]

    def job(self, *words: object) -> subprocess.CompletedProcess[str]:
        """`ray job ...`, as an operator types it in the checkout."""
        action, *rest = map(str, words)
        command = [str(BIN / "ray"), "job", action, "--address", self.dashboard, *rest]
        return subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    token, port, dashboard = uuid.uuid4().hex, free_port(), free_port()
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        # As on the clusters of cluster.yaml and deploy/.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": uuid.uuid4().hex,
        "CHAOS_TOKEN": token,
    }
    words = ["--head", "--block", "--port", port, "--num-cpus", 2, "--resources", '{"head": 1}']
    words += ["--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard]
    # Who takes jobs listens there: by default where other clusters of this machine do.
    words += ["--dashboard-agent-listen-port", free_port()]
    # Sockets below it have names of at most 107 bytes.
    words += ["--temp-dir", f"/tmp/lrm-{token[:8]}", "--disable-usage-stats"]
    ray = subprocess.Popen(
        [str(BIN / "ray"), "start", *map(str, words)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    head = Head(f"http://127.0.0.1:{dashboard}", environment)
    try:
        deadline = time.monotonic() + 90
        while head.job("list").returncode:
            assert time.monotonic() < deadline
            time.sleep(1)
        yield head
    finally:
        ray.terminate()
        ray.wait(60)
        _, alive = psutil.wait_procs(processes_with(token), timeout=30)
        for process in alive:
            process.kill()


def submit(head: Head, name: str, *words: object) -> None:
    """Where nodes may be taken away, the entry point belongs on the head."""
    place = ["--working-dir", ".", "--entrypoint-resources", '{"head": 1}', "--submission-id", name]
    command = ["python", "-m", "pipelines.cli", "build", *words, "--address", "auto"]
    said = head.job("submit", *place, "--no-wait", "--", *command)
    assert said.returncode == 0, said.stdout + said.stderr


def wait_for_end(head: Head, name: str) -> str:
    """What `ray job status` says in the end."""
    deadline = time.monotonic() + 240
    while True:
        said = head.job("status", name)
        text = said.stdout + said.stderr
        if any(word in text for word in ("succeeded", "failed", "stopped")):
            return text
        assert time.monotonic() < deadline, text
        time.sleep(1)


def test_nobody_submits_without_the_token(head, tmp_path):
    stranger = {**head.environment, "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    said = Head(head.dashboard, stranger).job("submit", "--no-wait", "--", "touch", tmp_path / "in")
    assert said.returncode != 0
    assert "token" in (said.stdout + said.stderr).lower()
    assert "touch" not in head.job("list").stdout
    assert not (tmp_path / "in").exists()


def test_bad_input_arrives_as_its_exit_code_and_line(head, tmp_path):
    submit(head, "bad", "--source", "/nowhere", "--root", tmp_path / "root")
    said = wait_for_end(head, "bad")
    assert "failed" in said
    assert "exit code 2" in said
    logs = head.job("logs", "bad")
    assert "lrm build: error: /nowhere" in logs.stdout + logs.stderr


def test_a_stopped_build_goes_on(head, demo_source, built: Built, tmp_path):
    root = tmp_path / "root"
    words = ["--source", demo_source, "--captions", demo_source / CAPTIONS_FILE, *QUICK]
    words += ["--limit", 8, "--root", root]
    submit(head, "first", *words)
    deadline = time.monotonic() + 200
    while not list(root.glob("catalog/*.parquet")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert head.job("stop", "first").returncode == 0
    assert "stopped" in wait_for_end(head, "first")
    submit(head, "second", *words)
    said = wait_for_end(head, "second")
    assert "succeeded" in said, said
    logs = head.job("logs", "second")
    assert "kept" in logs.stdout + logs.stderr
    status = run_lrm("status", "--root", root, "--json").json()
    assert (status["listed"], status["pending"]) == (8, 0)
    assert status["kept"] >= 3
    there, here = samples(Storage(str(root))), samples(Storage(str(built.root)))
    assert len(there) == status["kept"]
    assert there == {key: here[key] for key in there}
