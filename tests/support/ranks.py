"""Process groups of ranks, forked from one process that has everything imported.

The import of torch and DeepSpeed takes seconds of every process, more than a short training does.
One server process per test session imports them, and forks the ranks of each group. So a group of
any size starts at once, has no state of another group, and its ranks may end as they like.
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

import tests.support.shapes
from tests.support.paths import REPOSITORY

__all__ = ["RankFailed", "Ranks"]

_GRACE_SECONDS = 5.0
"""How long the other ranks may run on once one has failed."""


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
    "tests.support.tiny",
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
)


class RankFailed(Exception):
    """A rank raised an exception, or its process ended before the function returned."""


class Ranks:
    """Runs functions in process groups; close it at the end of the session."""

    def __init__(self, folder: Path) -> None:
        """`folder` gets a folder per group: where its ranks find each other and leave results."""
        self._folder = folder
        self._groups = 0
        self._server: subprocess.Popen | None = None
        self._connection: Connection | None = None

    def run(self, world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Call the function on every rank of a new group; return the results by rank.

        The function and its arguments can be pickled. Raises RankFailed.
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
            # A late answer would be taken for that of the next request.
            self.close(grace=0)
            raise
        if any(codes):
            causes = [path.read_text() for path in sorted(group.glob("*.txt"))]
            ends = [f"rank {rank} ended with exit code {code}" for rank, code in enumerate(codes)]
            raise RankFailed("\n".join(ends + causes))
        return [pickle.loads((group / f"{rank}.pickle").read_bytes()) for rank in range(world)]

    def close(self, grace: float = _GRACE_SECONDS) -> None:
        """End the server; after the grace in seconds, also its ranks."""
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
            self._connection, theirs = multiprocessing.Pipe()
            self._server = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=REPOSITORY,
                env=os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            theirs.close()
        return self._connection


def _serve(connection: Connection) -> None:
    """Start a group per request, until the other end is closed."""
    _import_all()
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        connection.send(_run_group(*request))


def _import_all() -> None:
    """Import what a training imports by and by. No Python thread may start: a fork loses it.

    Shapes are checked in the ranks as they are in the tests.
    """
    shapes = tests.support.shapes
    install_import_hook(shapes.modules_with_shapes(), f"{shapes.__name__}.check")
    for name in _IMPORTS:
        importlib.import_module(name)
    # The first use of its operators calls a compiler to find those that fit.
    _ = importlib.import_module("deepspeed.ops").__compatible_ops__
    importlib.import_module("torch").set_num_threads(1)


def _run_group(world: int, group: str, environment: dict[str, str], task: bytes) -> list[int]:
    """The exit codes by rank; once one has failed, the others have little time left."""
    context = multiprocessing.get_context("fork")
    place = (world, Path(group), environment, task)
    ranks = [context.Process(target=_rank, args=(rank, *place)) for rank in range(world)]
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
    """One rank: its result, or how it failed, goes to a file in the folder of the group."""
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
