"""What an executor on Ray requests of the autoscaler."""

import time
from pathlib import Path

import pytest

from dataset.catalog.event_log import Event
from pipelines.building.build_config import BuildConfig
from pipelines.building.executors import OnRay
from pipelines.building.tasks import Task


@pytest.fixture
def config(ray_address: str, tmp_path: Path) -> BuildConfig:
    execution = {"autoscaler_renders": 3, "fetch_cpus": 0.5}
    values = {"source": "/glbs", "root": str(tmp_path / "root"), "keep_raw": False}
    return BuildConfig.load(values | {"address": ray_address, "execution": execution})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many renders the autoscaler was asked for, each time."""
    found: list[int] = []
    monkeypatch.setattr(
        "ray.autoscaler.sdk.request_resources", lambda bundles: found.append(len(bundles))
    )
    return found


def until_it_is_there(task: Task, context) -> list[Event]:
    """Work that lasts until a file is there."""
    gate = Path(task.states[0])
    while not gate.exists():
        time.sleep(0.02)
    return []


def test_the_autoscaler_request_falls_with_the_renders_that_are_left(
    config, asked, monkeypatch, tmp_path
):
    monkeypatch.setattr("pipelines.building.executors._REQUEST_SECONDS", 0.0)
    executor = OnRay(config, None, work=until_it_is_there)
    try:
        gates = {name: tmp_path / name for name in ("fetch", "one", "two")}
        for name, gate in gates.items():
            executor.submit(Task(queue="fetch" if name == "fetch" else "render", states=(gate,)))
        executor.wait(0.1)
        assert asked == [3]
        with monkeypatch.context() as patch:
            patch.setattr(executor, "_cluster_resources", lambda: {"CPU": 10_000.0})
            patch.setitem(executor._limits, "fetch", 5)
            assert executor.capacity("fetch") == 4
        left = 3
        for gate in gates.values():
            gate.touch()
            while left == sum(executor._in_flight.values()):
                executor.wait(1)
            left -= 1
            executor.wait(0)
        assert asked == [3, 2, 1, 0]
        # Between two looks at a cluster that grows, all may seem to be in flight.
        executor.submit(Task(queue="fetch", states=(gate,)))
        executor.wait(0)
        assert asked == [3, 2, 1, 0, 3]
    finally:
        executor.close()
    assert asked[-1] == 0


def test_an_autoscaler_request_that_fails_is_cancelled(config, asked, monkeypatch):
    import ray

    def fail(bundles):
        asked.append(len(bundles))
        if bundles:
            raise KeyboardInterrupt

    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", fail)
    with pytest.raises(KeyboardInterrupt):
        OnRay(config, None)
    assert asked == [3, 0]
    assert not ray.is_initialized()
