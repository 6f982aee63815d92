"""How many training workers a Ray cluster has room for."""

from collections.abc import Mapping

from train.config import TrainConfig

__all__ = ["room_for_workers"]


def room_for_workers(config: TrainConfig, *, on_gpu: bool) -> int:
    """Workers that fit, each as a whole, into what is free on nodes that stay."""
    # The sums of `ray.available_resources` do not tell what lies on one node.
    from ray._private.state import state

    worker = dict(config.worker_resources)
    worker.setdefault("GPU" if on_gpu else "CPU", 1.0)
    leaving = state.get_draining_nodes()
    free = state.available_resources_per_node()
    return sum(_fitting(worker, node) for name, node in free.items() if name not in leaving)


def _fitting(worker: Mapping[str, float], node: Mapping[str, float]) -> int:
    return min(int(node.get(kind, 0.0) / amount) for kind, amount in worker.items())
