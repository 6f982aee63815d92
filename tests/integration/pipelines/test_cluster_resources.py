"""Free slots for training workers on a real Ray cluster."""

import os
import subprocess
import sys
import time

import ray

from pipelines.launch.cluster_resources import free_slots, worker_bundle, workers_have_gpus
from pipelines.ray_session import ray_session
from tests.support.paths import REPOSITORY
from train.settings.train_config import TrainConfig

SIGTERM_AFTER_RAY = """
import os, signal, sys
from pipelines.ray_session import ray_session
signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
with ray_session(sys.argv[1]):
    os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGTERM)
"""


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


def test_a_command_keeps_its_handler_of_sigterm_after_ray(ray_address):
    """Ray sets the system's default when it ends, which would end the command without a word."""
    result = subprocess.run(
        [sys.executable, "-c", SIGTERM_AFTER_RAY, ray_address],
        cwd=REPOSITORY,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout) == (0, "handled\n" * 2)
