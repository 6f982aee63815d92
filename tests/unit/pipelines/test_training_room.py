"""What a Ray cluster has for training workers: by its nodes, not by the driver's machine."""

import pytest
import ray

from pipelines.launch.cluster_resources import (
    has_gpus,
    room_for_workers,
    worker_bundle,
    workers_have_gpus,
)
from pipelines.ray_session import ray_session
from train.settings.train_config import TrainConfig

HEAD = {"CPU": 8.0, "head": 1.0}
RENDER = {"CPU": 64.0, "render": 64.0}
TRAIN = {"CPU": 96.0, "GPU": 8.0, "train": 8.0}


@pytest.mark.parametrize(
    ("nodes", "worker", "expected"),
    [
        ([HEAD, RENDER, TRAIN], {}, True),
        ([HEAD, RENDER, TRAIN], {"train": 1.0}, True),
        ([HEAD, RENDER, TRAIN], {"render": 1.0}, False),
        ([HEAD, RENDER], {}, False),
        # Nodes that the autoscaler has not started yet.
        ([HEAD], {"GPU": 1.0, "train": 1.0}, True),
    ],
)
def test_workers_run_on_gpus_where_their_nodes_have_some(nodes, worker, expected):
    assert has_gpus(nodes, worker) is expected


def test_room_is_what_is_free():
    config = TrainConfig.load(
        {"root": "r", "snapshot": "s", "out": "o", "worker_resources": {"CPU": 1}}
    )
    with ray_session("local"):
        assert workers_have_gpus(config) is False
        worker = worker_bundle(config, on_gpu=False)
        there = int(ray.cluster_resources()["CPU"])
        assert room_for_workers(worker) == there
        place = ray.util.placement_group([{"CPU": 1}])
        ray.get(place.ready())
        assert room_for_workers(worker) == there - 1
