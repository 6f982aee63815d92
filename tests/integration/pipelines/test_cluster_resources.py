"""Free places for training workers on a real Ray."""

import time

import ray

from pipelines.launch.cluster_resources import free_slots, worker_bundle, workers_have_gpus
from pipelines.ray_session import ray_session
from train.settings.train_config import TrainConfig


def test_slots_are_what_is_free(ray_address):
    config = TrainConfig.load(
        {"root": "r", "snapshot": "s", "out": "o", "worker_resources": {"CPU": 1}}
    )
    with ray_session(ray_address):
        assert workers_have_gpus(config) is False
        worker = worker_bundle(config, on_gpu=False)
        there = int(ray.cluster_resources()["CPU"])
        # Ray takes back what earlier tests held a moment after they ended.
        deadline = time.monotonic() + 30
        while free_slots(worker) != there and time.monotonic() < deadline:
            time.sleep(0.1)
        assert free_slots(worker) == there
        place = ray.util.placement_group([{"CPU": 1}])
        ray.get(place.ready())
        assert free_slots(worker) == there - 1
        ray.util.remove_placement_group(place)
