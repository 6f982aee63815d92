"""Process groups of ranks, forked from a server process that has imported everything.

The import of torch and DeepSpeed takes several seconds per process, longer than a short training.
One server process per test session imports them and forks the ranks of each group. So a group of
any size starts at once, shares no state with other groups, and its ranks may fail in any way.
"""

import importlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from jaxtyping import install_import_hook

import tests.support.shape_checks
from tests.support.paths import REPOSITORY

__all__ = ["RankFailed", "Ranks"]

_GRACE_SECONDS = 5.0
"""Seconds for which the other ranks may continue after one has failed."""
_IMPORTS = (
    "deepspeed.checkpoint.ds_to_universal",
    "deepspeed.module_inject",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "deepspeed.runtime.zero.stage3",
    "deepspeed.runtime.zero.stage_1_and_2",
    "pyarrow.dataset",
    "s3fs",
    "setuptools",
    "tests.support.nerf_runs",
    "tests.support.tiny_recipe",
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
)


class RankFailed(Exception):
    """The error that a rank raised an exception or ended before its function returned."""


class Ranks:
    """A server that runs functions in process groups; close it at the end of the session."""

    def __init__(self, folder: Path) -> None:
        """Use `folder` for one folder per group, with the rendezvous file and the results."""
        self._folder = folder
        self._groups = 0
        self._server: subprocess.Popen | None = None
        self._connection: Connection | None = None

    def run(self, world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Call the function on every rank of a new group; return the results by rank.

        The function and its arguments must support pickle. Raises RankFailed if a rank fails.
        """
        self._groups += 1
        group = self._folder / f"group-{self._groups}"
        group.mkdir()
        task = pickle.dumps((function, args))
        try:
            connection = self._connect()
            connection.send((world, str(group), dict(os.environ), task))
            codes = connection.recv()
        except BaseException:
            # Otherwise a late answer would be read as the answer to the next request.
            self.close(grace=0)
            raise
        if any(codes):
            tracebacks = [path.read_text() for path in sorted(group.glob("*.txt"))]
            exits = [f"rank {rank} ended with exit code {code}" for rank, code in enumerate(codes)]
            raise RankFailed("\n".join(exits + tracebacks))
        return [pickle.loads((group / f"{rank}.pickle").read_bytes()) for rank in range(world)]

    def close(self, grace: float = _GRACE_SECONDS) -> None:
        """End the server; kill it and its ranks if they still run after `grace` seconds."""
        if self._server is None or self._connection is None:
            return
        self._connection.close()
        try:
            self._server.wait(grace)
        except subprocess.TimeoutExpired:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
        self._server = self._connection = None

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection, server_end = multiprocessing.Pipe()
            self._server = subprocess.Popen(
                [sys.executable, "-m", __name__, str(server_end.fileno())],
                cwd=REPOSITORY,
                env=os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
                pass_fds=[server_end.fileno()],
                start_new_session=True,
            )
            server_end.close()
        return self._connection


def _serve(connection: Connection) -> None:
    """Run one group per request until the other end of the connection is closed."""
    _import_all()
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        connection.send(_run_group(*request))


def _import_all() -> None:
    """Import the modules that a training imports. None may start a thread: forks lose threads.

    The ranks check shapes as the tests do.
    """
    shapes = tests.support.shape_checks
    install_import_hook(shapes.modules_with_shapes(), f"{shapes.__name__}.check")
    for name in _IMPORTS:
        importlib.import_module(name)
    # DeepSpeed runs a compiler when its list of compatible operators is first used.
    _ = importlib.import_module("deepspeed.ops").__compatible_ops__
    importlib.import_module("torch").set_num_threads(1)


def _run_group(world: int, group: str, environment: dict[str, str], task: bytes) -> list[int]:
    """Run a group and return the exit codes by rank.

    If a rank fails, the others are killed after the grace period.
    """
    context = multiprocessing.get_context("fork")
    arguments = (world, Path(group), environment, task)
    ranks = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(world)]
    for rank in ranks:
        rank.start()
    while alive := [rank for rank in ranks if rank.exitcode is None]:
        failed = any(rank.exitcode for rank in ranks)
        ended = wait([rank.sentinel for rank in alive], _GRACE_SECONDS if failed else None)
        if not ended:
            for rank in alive:
                rank.kill()
        for rank in alive:
            if not ended or rank.sentinel in ended:
                rank.join()
    return [rank.exitcode or 0 for rank in ranks]


def _rank(rank: int, world: int, group: Path, environment: dict[str, str], task: bytes) -> None:
    """Run one rank; write its result or its traceback to a file in the group's folder."""
    import torch.distributed as dist

    os.environ.clear()
    os.environ.update(environment | {"LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu"})
    store = {"init_method": f"file://{group}/store", "rank": rank, "world_size": world}
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=60), **store)
        function, args = pickle.loads(task)
        result = function(*args)
        (group / f"{rank}.pickle").write_bytes(pickle.dumps(result))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        (group / f"{rank}.txt").write_text(traceback.format_exc())
        raise


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
