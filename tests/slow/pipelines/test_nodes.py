"""A cluster of several nodes: renders run on render nodes, and work survives a lost node."""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from core.storage import Storage
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from tests.support.datasets import QUICK, BuiltDataset, event_outcomes, events_of, samples
from tests.support.fake_cluster import FakeCluster, processes_with
from tests.support.paths import REPOSITORY
from tests.support.train_arguments import nerf_arguments as train_words
from train.monitoring.metrics_log import read_metrics
from train.monitoring.run_file import RUN_FILE

RESOURCES = [
    "--execution.render-resources",
    "{render: 1}",
    "--execution.fetch-resources",
    "{head: 0.1}",
    "--execution.pack-resources",
    "{head: 0.1}",
]


@pytest.fixture
def cluster():
    token = uuid.uuid4().hex
    with FakeCluster(2, {"CPU": 1.0, "render": 1.0}, token) as cluster:
        yield cluster
    # Ray's helper processes end after their raylet, and Blender after its worker.
    _, alive = psutil.wait_procs(processes_with(token), timeout=60)
    assert [" ".join(process.cmdline()) for process in alive] == []


def blender_children(process: psutil.Process) -> list[psutil.Process]:
    try:
        children = process.children(recursive=True)
        return [child for child in children if "render.blender.worker" in child.cmdline()]
    except psutil.Error:
        return []


def test_objects_of_a_lost_render_node_are_rendered_on_another(
    cluster, demo_source, built_dataset: BuiltDataset, tmp_path
):
    root = tmp_path / "root"
    words = ["--source", demo_source, "--captions", demo_source / CAPTIONS_FILE, *QUICK, *RESOURCES]
    words += ["--limit", 10, "--root", root, "--address", cluster.address, "--json"]
    command = [sys.executable, "-m", "pipelines.cli", "build", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    driver = subprocess.Popen(command, cwd="/", env=environment, **pipes)
    try:
        deadline = time.monotonic() + 240
        while True:
            num_children = [len(blender_children(raylet)) for raylet in cluster.raylets()]
            if all(num_children):
                break
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        cluster.kill_node(0)
        cluster.add_node()
        _, errors = driver.communicate(timeout=240)
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.communicate()
    assert driver.returncode == 0, errors
    # The samples are those of a build on one machine, each once.
    built_samples, expected = samples(Storage(str(root))), samples(Storage(str(built_dataset.root)))
    assert len(built_samples) >= 4
    assert built_samples == {key: expected[key] for key in built_samples}
    ids = {row[0] for row in event_outcomes(Storage(str(root)))}
    assert event_outcomes(Storage(str(root))) == [
        row for row in event_outcomes(Storage(str(built_dataset.root))) if row[0] in ids
    ]
    assert {row["stage"] for row in events_of(root)} >= {"fetch", "render", "pack"}


def test_training_continues_without_a_preempted_node(cluster, sphere_dataset, tmp_path):
    """Ray announces the end of a node: the workers save, and the run goes on with fewer."""
    out = tmp_path / "run"
    options = ["--num-workers", "1:2", "--worker-resources", "{CPU: 1, render: 1}"]
    words = train_words(sphere_dataset, out, 40, *options, "--address", cluster.address)
    driver = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *words],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 200
        while len(read_metrics(out)) < 2:
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert num_workers_of(out) == 2
        cluster.announce_preemption(1)
        _, errors = driver.communicate(timeout=300)
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == 0, errors
    assert "workers ended: stopped at step" in errors
    assert num_workers_of(out) == 1
    assert [row["step"] for row in read_metrics(out)] == list(range(1, 41))


def num_workers_of(out: Path) -> int:
    return len(json.loads((out / RUN_FILE).read_bytes())["hosts"])
