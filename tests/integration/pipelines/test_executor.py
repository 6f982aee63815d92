"""The executor on Ray: its requests to the autoscaler, and what its tasks wait for."""

import re
import time
from pathlib import Path

import pytest

from dataset.catalog.event_log import Event
from pipelines.building.build_config import BuildConfig
from pipelines.building.executors import OnRay, may_run
from pipelines.building.tasks import Task


@pytest.fixture
def config(ray_address: str, tmp_path: Path) -> BuildConfig:
    execution = {"autoscaler_renders": 3, "fetch_cpus": 0.5}
    values = {"source": "/glbs", "root": str(tmp_path / "root"), "keep_raw": False}
    return BuildConfig.load(values | {"address": ray_address, "execution": execution})


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the number of renders of every request to the autoscaler, as a growing list."""
    requests: list[int] = []
    monkeypatch.setattr(
        "ray.autoscaler.sdk.request_resources", lambda bundles: requests.append(len(bundles))
    )
    return requests


def wait_for_file(task: Task, context) -> list[Event]:
    """Work until the file of the task exists."""
    gate = Path(task.states[0])
    while not gate.exists():
        time.sleep(0.02)
    return []


def test_the_autoscaler_request_shrinks_with_the_remaining_renders(
    config, requested, monkeypatch, tmp_path
):
    monkeypatch.setattr("pipelines.building.executors._REQUEST_SECONDS", 0.0)
    executor = OnRay(config, None, work=wait_for_file)
    try:
        gates = {name: tmp_path / name for name in ("fetch", "one", "two")}
        for name, gate in gates.items():
            executor.submit(Task(queue="fetch" if name == "fetch" else "render", states=(gate,)))
        executor.wait(0.1)
        assert requested == [3]
        with monkeypatch.context() as patch:
            patch.setattr(executor, "_cluster_resources", lambda: {"CPU": 10_000.0})
            patch.setitem(executor._limits, "fetch", 5)
            assert executor.free_slots("fetch") == 4
        num_in_flight = 3
        for gate in gates.values():
            gate.touch()
            while num_in_flight == sum(executor._in_flight.values()):
                executor.wait(1)
            num_in_flight -= 1
            executor.wait(0)
        assert requested == [3, 2, 1, 0]
        # While a cluster grows, all submitted tasks may count as in flight.
        executor.submit(Task(queue="fetch", states=(gate,)))
        executor.wait(0)
        assert requested == [3, 2, 1, 0, 3]
    finally:
        executor.close()
    assert requested[-1] == 0


def test_an_interrupted_autoscaler_request_is_cancelled(config, requested, monkeypatch):
    import ray

    def fail(bundles):
        requested.append(len(bundles))
        if bundles:
            raise KeyboardInterrupt

    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", fail)
    with pytest.raises(KeyboardInterrupt):
        OnRay(config, None)
    assert requested == [3, 0]
    assert not ray.is_initialized()


def test_a_task_that_no_node_can_run_is_explained(config, requested, monkeypatch, tmp_path):
    resources = {"render_resources": {"nowhere": 1}, "autoscaler_renders": 0}
    execution = config.execution.model_copy(update=resources)
    executor = OnRay(config.model_copy(update={"execution": execution}), None, wait_for_file)
    try:
        assert executor.waiting_for() == ""
        executor.submit(Task(queue="render", states=(tmp_path / "gate",)))
        executor.wait(0)
        assert executor.waiting_for() == ""
        monkeypatch.setattr("pipelines.building.executors._SILENT_SECONDS", 0.0)
        assert re.fullmatch(
            r"waiting for the cluster: a render task needs 1 CPU \([0-4] of 4 free\), "
            r"1 nowhere \(0 of 0 free\)",
            executor.waiting_for(),
        )
    finally:
        executor.close()


def test_long_work_is_not_taken_for_waiting(config, requested, monkeypatch, tmp_path):
    monkeypatch.setattr("pipelines.building.executors._SILENT_SECONDS", 0.0)
    monkeypatch.setattr("pipelines.building.executors._RESOURCES_SECONDS", 0.0)
    executor = OnRay(config, None, wait_for_file)
    gate = tmp_path / "gate"
    try:
        executor.submit(Task(queue="render", states=(gate,)))
        deadline = time.monotonic() + 30
        while not re.fullmatch(r"no task has ended for \d+ seconds", executor.waiting_for()):
            assert time.monotonic() < deadline, executor.waiting_for()
            executor.wait(0.1)
        gate.touch()
        assert len(executor.wait(30)) == 1
        assert executor.waiting_for() == ""
    finally:
        executor.close()


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        ({"CPU": 8.0, "render": 4.0}, False),  # nothing runs
        ({"CPU": 2.0, "render": 4.0}, False),  # another program uses the cores
        ({"CPU": 7.0, "render": 3.99}, True),
        ({}, True),  # Ray leaves out what is used up
    ],
)
def test_a_task_can_run_only_while_its_resources_are_used(free, expected):
    total = {"CPU": 8.0, "render": 4.0}
    assert may_run(total, free, {"CPU": 1.0, "render": 0.01}) is expected
    assert not may_run(total, free, {"CPU": 1.0, "GPU": 1.0})
