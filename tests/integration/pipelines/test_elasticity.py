"""The number of workers of an elastic run, and its restart on growth, on a real Ray cluster."""

import threading
import time
from collections.abc import Callable

import pytest
import ray
from ray.util.placement_group import PlacementGroup

from core.errors import Stopped
from pipelines.launch import elasticity
from pipelines.launch.cluster_resources import free_slots
from pipelines.launch.elasticity import restart_on_growth, wait_for_slots
from pipelines.ray_session import ray_session
from train.resilience.stop_file import StopFile
from train.settings.train_config import TrainConfig


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def reserve(cpus: int) -> PlacementGroup:
    group = ray.util.placement_group([{"CPU": 1}] * cpus)
    ray.get(group.ready())
    return group


def test_an_elastic_run_starts_on_the_free_slots_and_restarts_on_more(
    ray_address, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(elasticity, "_RELEASE_SECONDS", 0.0)
    monkeypatch.setattr(elasticity, "_GROWTH_POLL_SECONDS", 0.1)
    with ray_session(ray_address):
        num_cpus = int(ray.cluster_resources()["CPU"])
        settings = {"root": "r", "snapshot": "s", "out": str(tmp_path), "batch_size": num_cpus}
        elastic = TrainConfig.load(settings | {"num_workers": f"1:{num_cpus}"})
        assert elastic.worker_counts[-1] == num_cpus > 1
        stop_file = StopFile(tmp_path)
        other_jobs = reserve(num_cpus - 1)
        wait_until(lambda: free_slots({"CPU": 1.0}) == 1)
        num_workers = wait_for_slots(elastic, stop_file)
        assert num_workers == 1
        worker = reserve(num_workers)
        wait_until(lambda: free_slots({"CPU": 1.0}) == 0)
        with restart_on_growth(elastic, num_workers, stop_file):
            time.sleep(0.5)
            assert not stop_file.is_requested()
            ray.util.remove_placement_group(other_jobs)
            wait_until(stop_file.is_for_restart)
        with pytest.raises(Stopped):
            wait_for_slots(elastic, stop_file)
        stop_file.remove()
        fixed = TrainConfig.load(settings | {"num_workers": num_cpus})
        monkeypatch.setattr(elasticity, "_LINE_SECONDS", 1.0)
        release = threading.Timer(3.0, ray.util.remove_placement_group, (worker,))
        release.start()
        assert wait_for_slots(fixed, stop_file) == num_cpus
        line = f"waiting for free slots: {num_cpus} workers needed, {num_cpus - 1} fit"
        assert caplog.text.count(line) >= 3
