"""Free slots for training workers on a real Ray cluster."""

import time

import ray

from pipelines.launch.cluster_resources import free_slots, worker_bundle, workers_have_gpus
from pipelines.ray_session import ray_session
from train.settings.train_config import TrainConfig


def test_free_slots_count_the_unused_cpus(ray_address):
    config = TrainConfig.load(
        {"root": "r", "snapshot": "s", "out": "o", "worker_resources": {"CPU": 1}}
    )
    with ray_session(ray_address):
        assert workers_have_gpus(config) is False
        worker = worker_bundle(config, on_gpu=False)
        num_cpus = int(ray.cluster_resources()["CPU"])
        # Ray frees the resources of earlier tests a moment after they end.
        deadline = time.monotonic() + 30
        while free_slots(worker) != num_cpus and time.monotonic() < deadline:
            time.sleep(0.1)
        assert free_slots(worker) == num_cpus
        placement_group = ray.util.placement_group([{"CPU": 1}])
        ray.get(placement_group.ready())
        assert free_slots(worker) == num_cpus - 1
        ray.util.remove_placement_group(placement_group)
