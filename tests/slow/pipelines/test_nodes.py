"""Several nodes: renders go where renders belong, and work survives the loss of a node."""

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
from tests.support.datasets import QUICK, Built, ends, events_of, samples
from tests.support.fake_cluster import FakeCluster, processes_with
from tests.support.paths import REPOSITORY
from tests.support.train_words import words as train_words
from train.monitoring.metrics_log import read_metrics
from train.monitoring.run_log import RUN_FILE

PLACES = [
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
    # Ray's helpers follow those that they served, and Blender its worker.
    _, alive = psutil.wait_procs(processes_with(token), timeout=60)
    assert [" ".join(process.cmdline()) for process in alive] == []


def blenders(process: psutil.Process) -> list[psutil.Process]:
    try:
        children = process.children(recursive=True)
        return [child for child in children if "render.blender.worker" in child.cmdline()]
    except psutil.Error:
        return []


def test_a_render_node_dies_and_its_objects_are_done_elsewhere(
    cluster, demo_source, built: Built, tmp_path
):
    root = tmp_path / "root"
    words = ["--source", demo_source, "--captions", demo_source / CAPTIONS_FILE, *QUICK, *PLACES]
    words += ["--limit", 10, "--root", root, "--address", cluster.address, "--json"]
    command = [sys.executable, "-m", "pipelines.cli", "build", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    driver = subprocess.Popen(command, cwd="/", env=environment, **pipes)
    try:
        deadline = time.monotonic() + 240
        while True:
            at_work = [len(blenders(raylet)) for raylet in cluster.raylets()]
            if all(at_work):
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
    # What is there is what a build on one machine makes, each object once.
    there, here = samples(Storage(str(root))), samples(Storage(str(built.root)))
    assert len(there) >= 4
    assert there == {key: here[key] for key in there}
    ids = {row[0] for row in ends(Storage(str(root)))}
    assert ends(Storage(str(root))) == [
        row for row in ends(Storage(str(built.root))) if row[0] in ids
    ]
    assert {row["stage"] for row in events_of(root)} >= {"fetch", "render", "pack"}


def test_a_preempted_node_is_left_and_training_goes_on_without_it(
    cluster, sphere_dataset, tmp_path
):
    """Ray says that a node will go: the workers save, and go on with as many as have a place."""
    out = tmp_path / "run"
    places = ["--num-workers", "1:2", "--worker-resources", "{CPU: 1, render: 1}"]
    words = train_words(sphere_dataset, out, 40, *places, "--address", cluster.address)
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
        assert workers_of(out) == 2
        cluster.announce_end(1)
        _, said = driver.communicate(timeout=300)
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == 0, said
    assert "workers ended: stopped at step" in said
    assert workers_of(out) == 1
    assert [row["step"] for row in read_metrics(out)] == list(range(1, 41))


def workers_of(out: Path) -> int:
    return len(json.loads((out / RUN_FILE).read_bytes())["hosts"])
