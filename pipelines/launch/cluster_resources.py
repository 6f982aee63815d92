"""The resources of a Ray cluster for training workers: GPUs, free slots, autoscaler requests.

A slot is a set of free resources on one node into which one training worker fits.
"""

from collections.abc import Mapping, Sequence

from train.settings.train_config import TrainConfig

__all__ = [
    "count_slots",
    "free_slots",
    "has_gpus",
    "machine_resources",
    "request_nodes",
    "worker_bundle",
    "workers_have_gpus",
]

Resources = Mapping[str, float]
"""Amount of each resource, by Ray's name for it, such as {"CPU": 4.0, "GPU": 1.0}."""


def workers_have_gpus(config: TrainConfig) -> bool:
    """Return whether each training worker gets a GPU.

    The nodes of the cluster decide, not the driver's machine, which may be a head node without GPU.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return has_gpus(nodes, config.worker_resources)


def has_gpus(nodes: Sequence[Resources], worker: Resources) -> bool:
    """Return whether workers that need these resources run on GPUs on these nodes.

    They do if `worker` contains a GPU, or if a node with all of `worker` also has a GPU.
    """
    if "GPU" in worker:
        return True
    suitable = [node for node in nodes if all(node.get(k, 0.0) >= v for k, v in worker.items())]
    return any(node.get("GPU", 0.0) >= 1 for node in suitable)


def worker_bundle(config: TrainConfig, *, on_gpu: bool) -> dict[str, float]:
    """Return the resources that one training worker reserves with Ray."""
    return {"GPU" if on_gpu else "CPU": 1.0, **config.worker_resources}


def machine_resources() -> Resources:
    """Return the resources that a Ray started on this machine will have, without starting it."""
    from ray._private.resource_and_label_spec import ResourceAndLabelSpec

    return dict(ResourceAndLabelSpec().resolve(is_head=True).to_resource_dict())


def free_slots(worker: Resources) -> int:
    """Return how many workers fit into the free resources of nodes that are not draining."""
    # `ray.available_resources` returns sums over all nodes, but a worker must fit on one node.
    from ray._private.state import state

    draining = state.get_draining_nodes()
    free = state.available_resources_per_node()
    return count_slots(worker, [node for name, node in free.items() if name not in draining])


def count_slots(worker: Resources, free: Sequence[Resources]) -> int:
    """Return how many workers fit into the free resources of these nodes, each on one node."""
    return sum(_slots(worker, node) for node in free)


def request_nodes(worker: Resources, workers: int) -> None:
    """Request nodes for this many workers from the autoscaler; 0 cancels the request."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[dict(worker)] * workers)


def _slots(worker: Resources, node: Resources) -> int:
    # 0.3 of a resource has three slots of 0.1, but the quotient is just below 3.
    return min(int(node.get(kind, 0.0) / amount + 1e-6) for kind, amount in worker.items())
