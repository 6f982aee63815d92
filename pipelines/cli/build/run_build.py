"""What `lrm build` does: plan, take the lock, open what the work needs, and do it."""

import argparse
import contextlib

from core.errors import BadInput
from core.lock import exclusive_lock
from core.monitoring.endpoint import serve_metrics
from core.paths.temporary_folder import check_temporary_folder
from core.storage import Storage
from dataset.root import check_root
from pipelines.building.build_config import BuildConfig
from pipelines.building.committer import Committer
from pipelines.building.executors import InProcess, open_executor
from pipelines.building.failure_counts import FailureCounts
from pipelines.building.progress import Progress, print_when_waiting
from pipelines.building.records.build_record import BuildRecord
from pipelines.building.run import Build
from pipelines.cli.build.build_preparation import Preparation, prepare
from pipelines.cli.build.build_settings import BuildSettings
from pipelines.cli.tables import print_notes
from render.system_libraries import apt_command, missing_packages

__all__ = ["run_build"]


def run_build(arguments: argparse.Namespace) -> tuple[Storage, FailureCounts]:
    """Plan and run every stage that is missing; return the dataset and the failures."""
    settings = BuildSettings(arguments)
    config = settings.config(settings.memory())
    if config.address in ("local", "none"):
        check_temporary_folder()
        _require_system_libraries()
    root = Storage(config.root)
    lock = exclusive_lock(root, "lrm build", on_wait=print_when_waiting(arguments.wait))
    # However the build ends, its executor ends before the lock is released.
    with contextlib.ExitStack() as locked, contextlib.ExitStack() as opened:
        check_lock = locked.enter_context(lock) if check_root(root) else None
        # Errors in the input are found here, before the first byte is written.
        ready = prepare(settings)
        ready.check(arguments)
        print_notes("build", ready.lines())
        config = ready.config
        progress = Progress([stage.name for stage in ready.plan.decisions.stages])
        opened.enter_context(serve_metrics(arguments.metrics_port, progress.metrics))
        make_executor = open_executor if ready.plan.work else InProcess
        executor = make_executor(config, ready.source)
        opened.callback(executor.close)
        # Called before the executor is closed; the terminal is unchanged until the first tick.
        opened.callback(progress.close)
        if check_lock is None:
            check_lock = locked.enter_context(lock)
            if check_root(root):
                ready = _prepare_again(settings, config)
                ready.check(arguments)
        committer = Committer(ready.catalog, ready.latest, config.execution, check_lock)
        build = Build(config, ready.plan, committer, executor, progress, check_lock)
        accepted = {"loss": arguments.accept_loss, "changes": list(arguments.accept_changes)}
        record = BuildRecord(root, config, ready.memory, ready.comparison, accepted)
        with record.of(ready.plan, ready.source.revision, committer.run) as results:
            results |= {"objects": build.run(), "failures": dict(build.failures.counts)}
            results |= {"error": build.failures.undone() or None}
    return root, build.failures


def _prepare_again(settings: BuildSettings, config: BuildConfig) -> Preparation:
    """Return the plan for a dataset that another process has built since the first plan.

    Raises BadInput if that build has left other settings than those of the first plan.
    """
    ready = prepare(settings)
    if ready.config != config:
        raise BadInput(
            f"{config.root}: another command has built here with other settings since this one "
            "started: run the same command again"
        )
    return ready


def _require_system_libraries() -> None:
    """Raise BadInput if Blender lacks system libraries: it would exit without a message."""
    missing = missing_packages()
    if missing:
        command = apt_command(missing)
        raise BadInput(f"Blender needs system libraries that are not installed; run: {command}")
