"""A Ray cluster of several nodes on one machine, whose nodes can be killed."""

import os
import time
from collections.abc import Mapping
from typing import Any, Self

import psutil

from tests.support.paths import REPOSITORY

__all__ = ["FakeCluster", "children_of", "processes_with"]

_START_ATTEMPTS = 3
_PREEMPTION = 2
"""DRAIN_NODE_REASON_PREEMPTION in Ray's autoscaler.proto."""


class FakeCluster:
    """A head node that runs no work, and worker nodes of equal resources, one raylet each."""

    def __init__(self, nodes: int, resources: Mapping[str, float], token: str) -> None:
        """Start the cluster; every process has `token` as CHAOS_TOKEN in its environment."""
        from ray.cluster_utils import Cluster

        # Workers inherit these: they import this checkout, and the token identifies them.
        paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        os.environ |= {"RAY_AUTH_MODE": "disabled", "CHAOS_TOKEN": token, "OMP_NUM_THREADS": "1"}
        self._resources, self._token = dict(resources), token
        head = {"num_cpus": 1, "resources": {"head": 1.0}, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self._nodes: list[Any] = []
        self._head_pids = set(_raylets_of(self._cluster.head_node))
        for _ in range(nodes):
            self.add_node()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._cluster.shutdown()

    def add_node(self) -> None:
        """Add a worker node; call this from the main thread only."""
        resources = {name: amount for name, amount in self._resources.items() if name != "CPU"}
        cpus = self._resources["CPU"]
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                self._nodes.append(self._cluster.add_node(num_cpus=cpus, resources=resources))
                return
            except Exception as error:
                # Ray waits 30 seconds for a node; on a busy machine that may be too short.
                if "startup" not in str(error) or attempt == _START_ATTEMPTS:
                    raise
                self._end_late_raylets()

    def _end_late_raylets(self) -> None:
        known = {process.pid for process in self.raylets()} | self._head_pids
        for process in processes_with(self._token):
            if process.name() == "raylet" and process.pid not in known:
                process.kill()

    def replace_lost_nodes(self) -> None:
        """Replace the nodes whose raylet has ended, as an autoscaler does."""
        alive = [node for node in self._nodes if _raylets_of(node)]
        lost, self._nodes = len(self._nodes) - len(alive), alive
        for _ in range(lost):
            self.add_node()

    def workers(self, part: str) -> list[psutil.Process]:
        """Return the nodes' processes whose name or command line contains `part`."""
        matches = []
        for raylet in self.raylets():
            for process in children_of(raylet):
                try:
                    words = [process.name(), *process.cmdline()]
                except psutil.Error:
                    continue
                if any(part in word for word in words):
                    matches.append(process)
        return matches

    def raylets(self) -> list[psutil.Process]:
        """Return the raylets of the worker nodes, without the head node's."""
        running = [pid for node in self._nodes for pid in _raylets_of(node)]
        return [psutil.Process(pid) for pid in running]

    def announce_preemption(self, number: int, seconds: float = 3600.0) -> None:
        """Send a preemption notice: the node accepts no more work and ends after `seconds`."""
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        node, kind = self._nodes[number].node_id, _PREEMPTION
        due = int((time.time() + seconds) * 1000)
        accepted, reason = GcsClient(address=self.address).drain_node(node, kind, "spot", due)
        if not accepted:
            raise RuntimeError(reason)

    def kill_node(self, number: int) -> None:
        """Kill a raylet with SIGKILL, as if its machine failed; its workers lose their raylet."""
        node = self._nodes.pop(number)
        self._cluster.remove_node(node, allow_graceful=False)


def _raylets_of(node: Any) -> list[int]:
    """Return the ids of a node's running raylet processes."""
    started = node.all_processes.get("raylet", [])
    return [info.process.pid for info in started if info.process.poll() is None]


def children_of(process: psutil.Process) -> list[psutil.Process]:
    """Return all descendants of a process; none if it has ended."""
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def processes_with(token: str) -> list[psutil.Process]:
    """Return all processes with this token in their environment, except this one."""
    matches = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("CHAOS_TOKEN") == token:
                matches.append(process)
        except psutil.Error:
            continue
    return matches
