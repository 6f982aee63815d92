"""Builds as Ray jobs on a running head node: submitted, refused, stopped and resumed."""

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
from tests.support.datasets import QUICK, BuiltDataset, samples
from tests.support.fake_cluster import processes_with
from tests.support.lrm import run_lrm
from tests.support.paths import REPOSITORY

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A running head node with its dashboard."""

    dashboard: str
    environment: dict[str, str]

    def job(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run `ray job ...` as an operator does in the checkout."""
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
    # The agent that receives jobs: its default port is that of other clusters on this machine.
    words += ["--dashboard-agent-listen-port", free_port()]
    # A short path: the paths of sockets below it have at most 107 bytes.
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
    """Submit a build whose entry point runs on the head node, which is never preempted."""
    options = ["--working-dir", ".", "--submission-id", name]
    options += ["--entrypoint-resources", '{"head": 1}']
    command = ["python", "-m", "pipelines.cli", "build", *words, "--address", "auto"]
    result = head.job("submit", *options, "--no-wait", "--", *command)
    assert result.returncode == 0, result.stdout + result.stderr


def wait_for_end(head: Head, name: str) -> str:
    """Wait until the job ends and return the output of `ray job status`."""
    deadline = time.monotonic() + 240
    while True:
        result = head.job("status", name)
        text = result.stdout + result.stderr
        if any(word in text for word in ("succeeded", "failed", "stopped")):
            return text
        assert time.monotonic() < deadline, text
        time.sleep(1)


def test_a_job_without_the_token_is_refused(head, tmp_path):
    environment = {**head.environment, "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    result = Head(head.dashboard, environment).job(
        "submit", "--no-wait", "--", "touch", tmp_path / "in"
    )
    assert result.returncode != 0
    assert "token" in (result.stdout + result.stderr).lower()
    assert "touch" not in head.job("list").stdout
    assert not (tmp_path / "in").exists()


def test_bad_input_fails_the_job_with_its_exit_code_and_line(head, tmp_path):
    submit(head, "bad", "--source", "/nowhere", "--root", tmp_path / "root")
    status = wait_for_end(head, "bad")
    assert "failed" in status
    assert "exit code 2" in status
    logs = head.job("logs", "bad")
    assert "lrm build: error: /nowhere" in logs.stdout + logs.stderr


def test_a_stopped_build_is_resumed_by_the_next_job(
    head, demo_source, built_dataset: BuiltDataset, tmp_path
):
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
    # Ray kills the driver three seconds after the signal.
    lines = head.job("logs", "first").stdout.split("\n")
    assert "lrm build: stopped; the same command continues" in lines
    # Ray takes an id once: the documented command makes a new one each time.
    again = head.job("submit", "--submission-id", "first", "--no-wait", "--", "true")
    assert again.returncode != 0
    submit(head, "second", *words)
    job_status = wait_for_end(head, "second")
    assert "succeeded" in job_status, job_status
    logs = head.job("logs", "second")
    assert "kept" in logs.stdout + logs.stderr
    status = run_lrm("status", "--root", root, "--json").json()
    assert (status["listed"], status["pending"]) == (8, 0)
    assert status["kept"] >= 3
    job_samples, expected = samples(Storage(str(root))), samples(Storage(str(built_dataset.root)))
    assert len(job_samples) == status["kept"]
    assert job_samples == {key: expected[key] for key in job_samples}
