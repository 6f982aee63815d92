"""GPUs and slots for training workers are counted from a Ray cluster's nodes, not the driver."""

import pytest

from pipelines.launch.cluster_resources import count_slots, has_gpus, worker_bundle
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
def test_workers_use_gpus_if_their_nodes_have_some(nodes, worker, expected):
    assert has_gpus(nodes, worker) is expected


@pytest.mark.parametrize(
    ("worker", "free", "expected"),
    [
        ({"CPU": 1.0}, [{"CPU": 3.0}, {"CPU": 2.5}], 5),
        # A worker does not span two nodes.
        ({"CPU": 2.0}, [{"CPU": 3.0}, {"CPU": 3.0}, {"CPU": 1.0}], 2),
        ({"GPU": 1.0, "train": 1.0}, [HEAD, RENDER, TRAIN], 8),
        ({"GPU": 1.0, "train": 2.0}, [TRAIN], 4),
        ({"CPU": 1.0}, [], 0),
    ],
)
def test_each_worker_fits_as_a_whole_on_one_node(worker, free, expected):
    assert count_slots(worker, free) == expected


@pytest.mark.parametrize(
    ("resources", "on_gpu", "expected"),
    [
        ({}, False, {"CPU": 1.0}),
        ({}, True, {"GPU": 1.0}),
        ({"CPU": 2.0, "train": 1.0}, False, {"CPU": 2.0, "train": 1.0}),
        ({"train": 1.0}, True, {"GPU": 1.0, "train": 1.0}),
    ],
)
def test_a_worker_requests_one_device_and_the_configured_resources(resources, on_gpu, expected):
    settings = {"root": "r", "snapshot": "s", "out": "o", "worker_resources": resources}
    assert worker_bundle(TrainConfig.load(settings), on_gpu=on_gpu) == expected
