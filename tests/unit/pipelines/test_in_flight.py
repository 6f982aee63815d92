"""How many tasks a build has in flight, by the resources of its cluster."""

from pipelines.building.build_config import BuildConfig
from pipelines.building.executors import max_in_flight
from pipelines.building.stages.registry import STAGES


def most(name: str, source: str, **resources: float) -> int:
    config = BuildConfig(source=source, root="/root")
    queue = next(queue for queue in STAGES.queues(config) if queue.name == name)
    return max_in_flight(resources, queue.resources(config), queue.max_tasks(config))


def test_a_hub_bounds_the_downloads_of_a_large_cluster():
    # 3,000 requests in 300 s, for ten minutes.
    assert most("fetch", "objaverse@main", CPU=10_000) == 6000
    assert most("render", "objaverse@main", CPU=10_000) == 20_000
    assert most("fetch", "objaverse@main", CPU=64) == 512
    assert most("fetch", "/glbs", CPU=10_000) == 80_000
