"""`lrm build`: plan the work that is missing, and do it."""

import argparse
import contextlib
import json
from typing import TYPE_CHECKING

from core.errors import BadInput
from core.lock import exclusive_lock
from core.monitoring.endpoint import serve_metrics
from core.options import Parser, add_monitoring_options, add_wait_option
from core.paths.temporary_folder import check_temporary_folder
from core.storage import Storage
from dataset.root import check_root
from pipelines.cli.build.build_settings import BuildSettings, as_yaml
from pipelines.cli.command import Command
from pipelines.cli.commands.plan import PLAN_COMMON, plan_options
from pipelines.cli.commands.status import print_status
from pipelines.cli.tables import print_notes

if TYPE_CHECKING:
    from pipelines.building.build_config import BuildConfig
    from pipelines.cli.build.build_preparation import Preparation

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
    """Add the options of `lrm build`."""
    plan_options(parser)
    add_wait_option(parser)
    add_monitoring_options(parser)
    parser.add_argument(
        "--filters-only",
        action="store_true",
        help="Only apply other --filters options to the measurements in the catalog. Needs no "
        "--source, downloads and renders nothing.",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="Print the settings that the build would use, as YAML for --config, and build "
        "nothing. With --json, print JSON.",
    )


def _run(arguments: argparse.Namespace) -> int:
    """Do what is missing, or (`--filters-only`) evaluate the filters again."""
    if arguments.print_config:
        settings = BuildSettings(arguments)
        config = settings.config(settings.memory())
        print(json.dumps(config.dump()) if arguments.json else as_yaml(config).rstrip("\n"))
        return 0
    if arguments.filters_only:
        from pipelines.cli.build.filters_only import apply_filters

        return print_status(apply_filters(arguments), arguments.json)
    return _build_all(arguments)


def _build_all(arguments: argparse.Namespace) -> int:
    """Plan, run every stage that is missing, and print the status."""
    from pipelines.building.committer import Committer
    from pipelines.building.executors import InProcess, open_executor
    from pipelines.building.progress import Progress, print_when_waiting
    from pipelines.building.records.build_record import BuildRecord
    from pipelines.building.run import Build
    from pipelines.cli.build.build_preparation import prepare

    settings = BuildSettings(arguments)
    config = settings.config(settings.memory())
    if config.address in ("local", "none"):
        check_temporary_folder()
        _require_system_libraries()
    root = Storage(config.root)
    lock = exclusive_lock(root, "lrm build", on_wait=print_when_waiting(arguments.wait))
    with contextlib.ExitStack() as stack:
        check_lock = stack.enter_context(lock) if check_root(root) else None
        # Errors in the input are found here, before the first byte is written.
        ready = prepare(settings)
        ready.check(arguments)
        print_notes("build", ready.lines())
        config = ready.config
        make_executor = open_executor if ready.plan.work else InProcess
        executor = make_executor(config, ready.source)
        progress = Progress([stage.name for stage in ready.plan.decisions.stages])
        stack.enter_context(serve_metrics(arguments.metrics_port, progress.metrics))
        try:
            if check_lock is None:
                check_lock = stack.enter_context(lock)
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
        finally:
            progress.close()
            executor.close()
    code = print_status(root, arguments.json)
    build.failures.require_none_of_environment()
    return code


def _prepare_again(settings: BuildSettings, config: "BuildConfig") -> "Preparation":
    """Return the plan for a dataset that another process has built since the first plan.

    Raises BadInput if that build has left other settings than those of the first plan.
    """
    from pipelines.cli.build.build_preparation import prepare

    ready = prepare(settings)
    if ready.config != config:
        raise BadInput(
            f"{config.root}: another command has built here with other settings since this one "
            "started: run the same command again"
        )
    return ready


def _require_system_libraries() -> None:
    """Raise BadInput if Blender lacks system libraries: it would exit without a message."""
    from render.system_libraries import apt_command, missing_packages

    missing = missing_packages()
    if missing:
        command = apt_command(missing)
        raise BadInput(f"Blender needs system libraries that are not installed; run: {command}")


COMMAND = Command(
    example="lrm build --source DIR --captions FILE.csv --root DATASET",
    options=_options,
    run=_run,
    common=(*PLAN_COMMON, "--wait", "--filters-only"),
)
