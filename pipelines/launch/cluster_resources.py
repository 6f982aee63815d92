"""What a Ray cluster has for training workers: GPUs or none, and slots for how many."""

from collections.abc import Mapping, Sequence

from train.settings.train_config import TrainConfig

__all__ = [
    "count_slots",
    "free_slots",
    "has_gpus",
    "request_nodes",
    "worker_bundle",
    "workers_have_gpus",
]

Resources = Mapping[str, float]
"""Amounts by Ray's resource names."""


def workers_have_gpus(config: TrainConfig) -> bool:
    """Return whether each worker gets a GPU.

    The driver's own machine says nothing about it: it may be a head node without one.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return has_gpus(nodes, config.worker_resources)


def has_gpus(nodes: Sequence[Resources], worker: Resources) -> bool:
    """Return whether workers that need these resources run on GPUs on these nodes.

    They do if they ask for one, or if a node that has all they ask for also has a GPU.
    """
    if "GPU" in worker:
        return True
    able = [node for node in nodes if all(node.get(k, 0.0) >= v for k, v in worker.items())]
    return any(node.get("GPU", 0.0) >= 1 for node in able)


def worker_bundle(config: TrainConfig, *, on_gpu: bool) -> dict[str, float]:
    """Return the resources that one worker asks Ray for."""
    return {"GPU" if on_gpu else "CPU": 1.0, **config.worker_resources}


def free_slots(worker: Resources) -> int:
    """Return how many workers fit into the free resources of nodes that are not draining."""
    # The sums of `ray.available_resources` do not say what is free on one node.
    from ray._private.state import state

    draining = state.get_draining_nodes()
    free = state.available_resources_per_node()
    return count_slots(worker, [node for name, node in free.items() if name not in draining])


def count_slots(worker: Resources, free: Sequence[Resources]) -> int:
    """Return how many workers fit, each on one node, into what these nodes have free."""
    return sum(_slots(worker, node) for node in free)


def request_nodes(worker: Resources, workers: int) -> None:
    """Request nodes for this many workers from the autoscaler; 0 cancels the request."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[dict(worker)] * workers)


def _slots(worker: Resources, node: Resources) -> int:
    return min(int(node.get(kind, 0.0) / amount) for kind, amount in worker.items())
