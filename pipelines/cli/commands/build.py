"""`lrm build`: plan the work that is missing, and do it."""

import argparse
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from core.config import merge
from core.errors import BadInput
from core.lock import exclusive_lock
from core.monitoring.endpoint import serve_metrics
from core.options import (
    Parser,
    add_monitoring_options,
    add_wait_option,
    load_config,
    settings_from_options,
)
from core.paths.temporary_folder import check_temporary_folder
from core.storage import Storage
from dataset.catalog.event_log import Catalog
from dataset.root import check_root, open_root, read_build, write_build
from pipelines.building.progress import print_when_waiting
from pipelines.cli.command import Command
from pipelines.cli.commands.plan import PLAN_COMMON, plan_options
from pipelines.cli.commands.status import print_status
from pipelines.cli.tables import print_warnings

if TYPE_CHECKING:
    from pipelines.building.build_config import BuildConfig
    from pipelines.building.plan import Plan

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


def _run(arguments: argparse.Namespace) -> int:
    """Do what is missing, or (`--filters-only`) evaluate the filters again."""
    return _apply_filters_only(arguments) if arguments.filters_only else _build_all(arguments)


def _build_all(arguments: argparse.Namespace) -> int:
    """Plan, run every stage that is missing, and print the status."""
    from pipelines.building.build_config import BuildConfig
    from pipelines.building.committer import Committer
    from pipelines.building.executors import InProcess, open_executor
    from pipelines.building.object_table import latest_of
    from pipelines.building.plan import load_plan
    from pipelines.building.progress import Progress
    from pipelines.building.run import Build
    from pipelines.sources import open_source

    config = load_config(BuildConfig, arguments).checked()
    if config.address in ("local", "none"):
        check_temporary_folder()
        _require_system_libraries()
    root = Storage(config.root)
    source = open_source(config.source, config.fetch, config.captions)
    catalog = Catalog(root)
    latest = latest_of(root, catalog)
    lock = exclusive_lock(root, "lrm build", on_wait=print_when_waiting(arguments.wait))
    with contextlib.ExitStack() as stack:
        check_lock = stack.enter_context(lock) if check_root(root) else None
        # Errors in the input are found here, before the first byte is written.
        plan = load_plan(config, source, root, latest)
        print_warnings("build", plan.warnings())
        executor = open_executor(config, source) if plan.work else InProcess(config, source)
        progress = Progress([stage.name for stage in plan.decisions.stages])
        stack.enter_context(serve_metrics(arguments.metrics_port, progress.metrics))
        try:
            if check_lock is None:
                check_lock = stack.enter_context(lock)
                # Another process may have built here before this one got the lock.
                plan = load_plan(config, source, root, latest) if check_root(root) else plan
            record = {
                "config": config.dump(),
                "captions_revision": plan.captions_revision,
                "source_revision": source.revision,
                **_estimate_of(plan, config, root),
            }
            write_build(root, record)
            committer = Committer(catalog, latest, config.execution, check_lock)
            build = Build(config, plan, committer, executor, progress, check_lock)
            build.run()
            write_build(root, record | {"ended": datetime.now(UTC).isoformat()})
        finally:
            progress.close()
            executor.close()
    code = print_status(root, arguments.json)
    build.failures.require_none_of_environment()
    return code


def _estimate_of(plan: "Plan", config: "BuildConfig", root: Storage) -> dict[str, Any]:
    """Return the estimate that `lrm status` compares the cost with.

    A build that resumes a stopped one keeps the estimate of the first start, and a build with
    nothing to do keeps that of the build before; any other gets its own.
    """
    from pipelines.building.estimates.spending import estimate_record

    last_build = read_build(root) if check_root(root) else {}
    resumes = "ended" not in last_build and _is_stored_as(config, last_build.get("config", {}))
    if "estimate" in last_build and (resumes or not plan.work):
        return {"estimate": last_build["estimate"]}
    return {"estimate": estimate_record(plan.estimate)}


def _is_stored_as(config: "BuildConfig", values: dict[str, Any]) -> bool:
    """Return whether stored values, perhaps under old names, give the same configuration."""
    with contextlib.suppress(BadInput):
        return type(config).load(values) == config
    return False


def _apply_filters_only(arguments: argparse.Namespace) -> int:
    """Store other filter settings and print the status under them."""
    from pipelines.building.build_config import BuildConfig
    from pipelines.building.dataset_status import stored_config

    given = settings_from_options(BuildConfig, arguments)
    if "root" not in given:
        raise BadInput("--filters-only needs --root")
    root = open_root(str(given["root"]))
    with exclusive_lock(
        root, "lrm build --filters-only", on_wait=print_when_waiting(arguments.wait)
    ):
        build = read_build(root)
        before = stored_config(root).dump()
        # Use the root as the last build wrote it: one folder has many spellings.
        config = BuildConfig.load(merge(before, given | {"root": before["root"]}))
        changed = {name for name, value in config.dump().items() if value != before.get(name)}
        if changed - {"filters"}:
            others = ", ".join(sorted(changed - {"filters"}))
            raise BadInput(
                f"--filters-only changes only filters, but these settings differ, too: {others}"
            )
        write_build(root, build | {"config": config.dump()})
    return print_status(root, arguments.json)


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
