"""The request budget of a Ray cluster: two workers, and a server that counts requests."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.ray_session import ray_session
from pipelines.transfers.cluster_budget import _NAMESPACE, ClusterBudget
from pipelines.transfers.fetch_config import FetchConfig
from tests.support.hub import Fault, Hub, serve_hub

PATH = "glbs/000-000/model.glb"

REQUESTS, SECONDS = 40, 2.0


@pytest.fixture(scope="module")
def ray(ray_address: str) -> Iterator:
    with ray_session(ray_address):
        import ray

        yield ray


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    file = tmp_path / PATH
    file.parent.mkdir(parents=True)
    file.write_bytes(b"glTF\x02\x00\x00\x00\x0c\x00\x00\x00")
    with serve_hub(tmp_path) as server:
        yield server


def work(url: str, target: str, count: int) -> int:
    """Download `count` files as a worker does, with the budget of the server's name."""
    from urllib.parse import urlsplit

    from glb.container import glb_problem
    from pipelines.transfers.cluster_budget import open_budget
    from pipelines.transfers.download import download

    config = FetchConfig(partial_folder=f"{target}.parts", backoff_seconds=0.01)
    budget = open_budget(urlsplit(url).netloc, REQUESTS, SECONDS)
    assert isinstance(budget, ClusterBudget)
    for _ in range(count):
        download(url, Path(target), glb_problem, config, budget)
    return count


def start(ray, hub: Hub, tmp_path: Path, count: int) -> list:
    remote = ray.remote(num_cpus=0.5, max_retries=0)(work)
    return [
        remote.remote(hub.url(PATH), str(tmp_path / f"target{number}"), count)
        for number in range(2)
    ]


def test_two_workers_share_one_budget(ray, hub, tmp_path):
    ray.get(start(ray, hub, tmp_path, 1))  # both processes have started
    hub.request_times.clear()
    assert ray.get(start(ray, hub, tmp_path, 40), timeout=200) == [40, 40]
    times = sorted(hub.request_times)
    assert len(times) == 80
    # Requests arrive a little later than the budget allowed them.
    slack = 0.1
    for number, first in enumerate(times):
        assert sum(t < first + SECONDS - slack for t in times[number:]) <= REQUESTS * 1.1


def test_a_retry_after_of_one_worker_pauses_the_other(ray, hub, tmp_path):
    ray.get(start(ray, hub, tmp_path, 1))
    hub.request_times.clear()
    headers = {"Retry-After": "2"}
    hub.faults[PATH] = [Fault()] * 6 + [Fault(status=429, headers=headers)]
    ray.get(start(ray, hub, tmp_path, 10), timeout=200)
    gaps = [
        after - before
        for before, after in zip(hub.request_times, hub.request_times[1:], strict=False)
    ]
    longest = max(range(len(gaps)), key=gaps.__getitem__)
    assert gaps[longest] > 1.5
    # Between the response and the pause, at most one request of the other worker is in flight.
    assert 5 <= longest <= 8


def test_a_lost_actor_is_replaced(ray, hub):
    budget = ClusterBudget(hub.address, 1000, 1.0)
    budget.acquire(5)
    # Ray kills an actor after a short delay, so these calls run before or after its end.
    ray.kill(budget._actor)
    budget.acquire(120)
    budget.pause(0.1)
    deadline = time.monotonic() + 60
    with pytest.raises(ValueError, match="Failed to look up actor"):
        while time.monotonic() < deadline:
            ray.kill(ray.get_actor(budget._name, namespace=_NAMESPACE))
            time.sleep(0.05)
    budget.acquire(120)
    ClusterBudget(hub.address, 1000, 1.0).acquire(120)
