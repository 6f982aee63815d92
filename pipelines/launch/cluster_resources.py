"""What a Ray cluster has for training workers: GPUs or none, and room for how many."""

from collections.abc import Mapping, Sequence

from train.settings.train_config import TrainConfig

__all__ = [
    "count_workers",
    "has_gpus",
    "request_room",
    "room_for_workers",
    "worker_bundle",
    "workers_have_gpus",
]

Resources = Mapping[str, float]


def workers_have_gpus(config: TrainConfig) -> bool:
    """Whether each worker gets a GPU. The driver's own machine tells nothing: it may be a head
    without one."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return has_gpus(nodes, config.worker_resources)


def has_gpus(nodes: Sequence[Resources], worker: Resources) -> bool:
    """Whether workers that need these resources, of those that `nodes` have, run on GPUs.

    They do where they ask for one, or where a node that has all they ask for has one as well.
    """
    if "GPU" in worker:
        return True
    able = [node for node in nodes if all(node.get(k, 0.0) >= v for k, v in worker.items())]
    return any(node.get("GPU", 0.0) >= 1 for node in able)


def worker_bundle(config: TrainConfig, *, on_gpu: bool) -> dict[str, float]:
    """Ray's resources of one worker."""
    return {"GPU" if on_gpu else "CPU": 1.0, **config.worker_resources}


def room_for_workers(worker: Resources) -> int:
    """Workers that fit, each as a whole, into what is free on nodes that stay."""
    # The sums of `ray.available_resources` do not tell what lies on one node.
    from ray._private.state import state

    leaving = state.get_draining_nodes()
    free = state.available_resources_per_node()
    return count_workers(worker, [node for name, node in free.items() if name not in leaving])


def count_workers(worker: Resources, free: Sequence[Resources]) -> int:
    """Workers that fit, each as a whole, into what these nodes have free."""
    return sum(_fitting(worker, node) for node in free)


def request_room(worker: Resources, workers: int) -> None:
    """Ask the autoscaler for nodes that hold so many workers; 0 takes the wish back."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[dict(worker)] * workers)


def _fitting(worker: Resources, node: Resources) -> int:
    return min(int(node.get(kind, 0.0) / amount) for kind, amount in worker.items())
