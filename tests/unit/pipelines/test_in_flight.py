"""The maximum number of tasks in flight, from the resources of the cluster."""

from pipelines.building.build_config import BuildConfig
from pipelines.building.executors import max_in_flight
from pipelines.building.stages.registry import STAGES


def most_tasks(name: str, source: str, **resources: float) -> int:
    """Return the maximum number of tasks in flight of a queue."""
    config = BuildConfig(source=source, root="/root")
    queue = next(queue for queue in STAGES.queues(config) if queue.name == name)
    return max_in_flight(resources, queue.resources(config), queue.max_tasks(config))


def test_the_request_budget_limits_the_downloads_of_a_large_cluster():
    # The hub allows 3,000 requests in 300 s; tasks for ten minutes are in flight.
    assert most_tasks("fetch", "objaverse@main", CPU=10_000) == 6000
    assert most_tasks("render", "objaverse@main", CPU=10_000) == 20_000
    assert most_tasks("fetch", "objaverse@main", CPU=64) == 512
    assert most_tasks("fetch", "/glbs", CPU=10_000) == 80_000
