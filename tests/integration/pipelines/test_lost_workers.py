"""Lost workers: a task is retried, and fails with its own kind after the last attempt."""

from pathlib import Path

from core.failures import FailureKind
from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.root import write_build
from pipelines.building.build_config import BuildConfig
from pipelines.building.committer import Committer
from pipelines.building.executors import InProcess
from pipelines.building.guard.remembered import read_memory
from pipelines.building.object_table import latest_of
from pipelines.building.plan import Plan, load_plan
from pipelines.building.progress import Progress
from pipelines.building.run import Build
from pipelines.building.tasks import Finished
from pipelines.sources import open_source
from tests.support.datasets import events_of


class LosingExecutor(InProcess):
    """An executor that reports `num_lost` tasks as lost before it runs the first one."""

    def __init__(self, config: BuildConfig, num_lost: int) -> None:
        source = open_source(config.source, config.fetch, config.captions)
        super().__init__(config, source)
        self._left = num_lost

    def wait(self, seconds: float) -> list[Finished]:
        if not self._queue or not self._left:
            return super().wait(seconds)
        self._left -= 1
        return [Finished(task=self._queue.popleft(), lost="WorkerCrashedError: gone")]


def make_plan(config: BuildConfig) -> Plan:
    source = open_source(config.source, config.fetch, config.captions)
    root = Storage(config.root)
    return load_plan(config, source, root, latest_of(root), read_memory(root))


def build(config: BuildConfig, num_lost: int) -> dict[str, int]:
    root = Storage(config.root)
    plan, catalog, executor = make_plan(config), Catalog(root), LosingExecutor(config, num_lost)
    write_build(root, {"config": config.dump(), "captions_revision": plan.captions_revision})
    committer = Committer(catalog, latest_of(root, catalog), config.execution)
    progress = Progress([stage.name for stage in plan.decisions.stages])
    try:
        return Build(config, plan, committer, executor, progress, lambda: None).run()
    finally:
        progress.close()
        executor.close()


def test_a_task_is_retried_and_fails_as_worker_lost_after_the_last_attempt(
    demo_source: Path, tmp_path: Path
):
    config = BuildConfig.load(
        {
            "source": str(demo_source),
            "root": str(tmp_path),
            "address": "none",
            "limit": 1,
            # The object is dropped after its inspection, so nothing is rendered.
            "filters": {
                "caption": {"enabled": False},
                "textured": {"min_triangle_share": 1},
                "missing_texture": {"enabled": False},
            },
            "render": {"resolution": 40, "samples": 1},
            "execution": {"attempts": 3},
        }
    ).checked()
    assert build(config, num_lost=3) == {"failed": 1}
    (event,) = (row for row in events_of(tmp_path) if row["stage"] != "list")
    assert (event["stage"], event["status"], event["kind"]) == ("fetch", "failed", "worker_lost")
    assert event["message"] == "worker lost in each of 3 attempts: WorkerCrashedError: gone"
    assert make_plan(config).work == {"fetch": {"retry": 1}}
    assert FailureKind.WORKER_LOST not in build(config, num_lost=2)
    assert [event["stage"] for event in events_of(tmp_path)][2:4] == ["fetch", "inspect"]
