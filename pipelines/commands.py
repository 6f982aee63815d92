"""The subcommands of `lrm`: each reads its options, does one thing and prints the result."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from dataset.catalog import Catalog
from dataset.errors import BadInput
from dataset.root import check_root, open_root, write_build
from dataset.storage import Storage
from pipelines.options import Parser, add_config_options, load_config

__all__ = ["COMMANDS", "Command"]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A subcommand: its help, its options and what it does."""

    name: str
    purpose: str
    example: str
    options: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]

    def add(self, subparsers: Any) -> None:
        """Add this command to the parser."""
        parser = subparsers.add_parser(
            self.name,
            help=self.purpose,
            description=self.purpose,
            epilog=f"example:\n  {self.example}",
            populate=self.options,
        )
        parser.set_defaults(run=self.run)


def _build_options(parser: Parser) -> None:
    from pipelines.settings import BuildConfig

    add_config_options(parser, BuildConfig)
    _json_option(parser)


def _root_options(parser: Parser) -> None:
    parser.add_argument("--root", required=True, help="folder or URI of the dataset")
    _json_option(parser)


def _json_option(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _build(arguments: argparse.Namespace) -> int:
    from pipelines.build import Build
    from pipelines.execute import InProcess, open_executor
    from pipelines.plan import load_plan
    from pipelines.progress import Progress
    from pipelines.settings import BuildConfig
    from pipelines.sources import open_source
    from pipelines.status import load_standing, summarise

    config = load_config(BuildConfig, arguments).checked()
    if config.address in ("local", "none"):
        _require_system_libraries()
    root = Storage(config.root)
    check_root(root)
    source = open_source(config.source)
    catalog = Catalog(root)
    # Everything that can be wrong with the input is found before the first byte is written.
    plan = load_plan(config, source, catalog)
    executor = open_executor(config, source) if plan.work else InProcess(config, source)
    progress = Progress()
    try:
        write_build(root, {"config": config.dump(), "captions_revision": plan.captions_revision})
        Build(config, plan, catalog, executor, progress).run()
    finally:
        progress.close()
        executor.close()
    _show_status(summarise(load_standing(root)), arguments.json)
    return 0


def _require_system_libraries() -> None:
    """Before this machine renders: Blender would end without a word."""
    from render.system import apt_command, missing_packages

    missing = missing_packages()
    if missing:
        command = apt_command(missing)
        raise BadInput(f"Blender needs system libraries that are not here; install: {command}")


def _plan(arguments: argparse.Namespace) -> int:
    from pipelines.plan import load_plan
    from pipelines.settings import BuildConfig
    from pipelines.sources import open_source

    config = load_config(BuildConfig, arguments).checked()
    root = Storage(config.root)
    check_root(root)
    plan = load_plan(config, open_source(config.source), Catalog(root)).to_dict()
    if arguments.json:
        print(json.dumps(plan))
        return 0
    table = Table("stage", "why", "objects", title="work to do (next stage of each object)")
    for stage, reasons in plan["work"].items():
        for why, count in reasons.items():
            table.add_row(stage, why, str(count))
    estimate = plan["estimate"]
    Console().print(table if plan["work"] else "nothing to do")
    print(
        f"about {estimate['core_hours']:.2f} core-hours, {estimate['gpu_hours']:.2f} GPU-hours, "
        f"{_size(estimate['bytes'])} of samples"
    )
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from pipelines.status import load_standing, summarise

    _show_status(summarise(load_standing(open_root(arguments.root))), arguments.json)
    return 0


def _inspect_options(parser: Parser) -> None:
    _root_options(parser)
    parser.add_argument("object", metavar="OBJECT", help="an asset id, such as objaverse:UID")
    parser.add_argument("--sheet", metavar="FILE", help="write its contact sheet as a picture")


def _inspect(arguments: argparse.Namespace) -> int:
    from pipelines.sheets import write_sheet
    from pipelines.status import inspect_object

    root = open_root(arguments.root)
    found = inspect_object(root, arguments.object)
    if arguments.sheet:
        write_sheet(root, found, arguments.sheet)
    if arguments.json:
        print(json.dumps(found))
        return 0
    console = Console(highlight=False)
    console.print(
        f"{found['asset_id']}  {found['record']['name']!r}: {found['state']}", markup=False
    )
    for verdict in found["dropped"]:
        limit, measured = verdict["limit"], verdict["measured"]
        line = f"  dropped by {verdict['filter']}: {verdict['reason']}"
        console.print(f"{line} (measured {measured}, limit {limit})", markup=False)
    if found["failed"]:
        failure = found["failed"]
        line = f"  failed in {failure['stage']}: {failure['kind']}: {failure['message']}"
        console.print(line, markup=False)
    for event in found["events"]:
        what = f"{event['stage']:<8} {event['status']:<7} {event['seconds']:.2f} s"
        line = f"  {event['time'][:19]}  {what}"
        console.print(line, markup=False)
    for sample in found["samples"]:
        console.print(f"  views: {sample['shard']} ({sample['key']})", markup=False)
    return 0


def _snapshot_options(parser: Parser) -> None:
    _root_options(parser)
    parser.add_argument(
        "--where",
        metavar="EXPR",
        help="keep only samples for which this SQL condition holds, such as \"licence = 'by'\"",
    )
    parser.add_argument(
        "--validation-share",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="share of the objects, chosen by their ids, that validation gets [default: 0.01]",
    )


def _snapshot(arguments: argparse.Namespace) -> int:
    from pipelines.freeze import freeze

    if not 0 <= arguments.validation_share < 1:
        raise BadInput("--validation-share must be at least 0 and less than 1")
    manifest = freeze(open_root(arguments.root), arguments.where, arguments.validation_share)
    if arguments.json:
        print(json.dumps(manifest))
    else:
        splits = ", ".join(f"{count} {split}" for split, count in manifest["splits"].items())
        print(f"snapshot {manifest['snapshot']}: {manifest['samples']} samples ({splits})")
    return 0


def _train_options(parser: Parser) -> None:
    from pipelines.launch import RECIPES

    recipes = parser.add_subparsers(
        dest="recipe", metavar="RECIPE", required=True, parser_class=Parser
    )
    for name, kind in RECIPES.items():
        example = f"example:\n  lrm train {name} --root DATASET --snapshot ID --out RUN"
        recipe = recipes.add_parser(
            name, help=kind.purpose, description=kind.purpose, epilog=example
        )
        add_config_options(recipe, kind.config)
        _json_option(recipe)


def _train(arguments: argparse.Namespace) -> int:
    from pipelines.launch import RECIPES, launch

    name = arguments.recipe
    summary = launch(name, load_config(RECIPES[name].config, arguments))
    if arguments.json:
        print(json.dumps(summary))
        return 0
    first = summary["first_step"]
    print(f"went on after step {first}" if first else "started at step 1")
    if summary["loss"] is not None:
        losses = (summary["loss_first"], summary["loss"])
        print("loss {:.4f} at the first step, {:.4f} at the last".format(*losses))
    print(f"metrics, checkpoints and previews: {summary['out']}")
    return 0


def _show_status(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
        return
    table = Table("state", "reason", "objects", title="funnel")
    table.add_row("listed", "", str(summary["listed"]))
    for state in ("dropped", "failed"):
        for reason, count in summary[state].items():
            table.add_row(state, reason, str(count))
    table.add_row("pending", "", str(summary["pending"]))
    table.add_row("kept", "", str(summary["kept"]))
    console = Console(highlight=False)
    console.print(table)
    stages = ", ".join(
        f"{stage} {values['done']} in {values['seconds']:.0f} s"
        for stage, values in summary["stages"].items()
    )
    size = summary["bytes"]
    console.print(f"done: {stages}", soft_wrap=True)
    console.print(f"fetched {_size(size['fetched'])}, samples {_size(size['samples'])}")


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


COMMANDS = (
    Command(
        name="build",
        purpose="Plan and do whatever is missing; the same command again is the refresh.",
        example="lrm build --source DIR --captions FILE.csv --root DATASET",
        options=_build_options,
        run=_build,
    ),
    Command(
        name="plan",
        purpose="Say what build would do and what it would cost; changes nothing.",
        example="lrm plan --source DIR --captions FILE.csv --root DATASET",
        options=_build_options,
        run=_plan,
    ),
    Command(
        name="status",
        purpose="Show the funnel: listed, kept, dropped per reason, failed per kind.",
        example="lrm status --root DATASET",
        options=_root_options,
        run=_status,
    ),
    Command(
        name="inspect",
        purpose="Show everything known of one object.",
        example="lrm inspect --root DATASET objaverse:UID --sheet sheet.png",
        options=_inspect_options,
        run=_inspect,
    ),
    Command(
        name="snapshot",
        purpose="Freeze the kept samples for training; prints the snapshot's id.",
        example="lrm snapshot --root DATASET",
        options=_snapshot_options,
        run=_snapshot,
    ),
    Command(
        name="train",
        purpose="Train on a snapshot; the same command again goes on from the last checkpoint.",
        example="lrm train nerf --root DATASET --snapshot ID --out RUN --num-workers 2",
        options=_train_options,
        run=_train,
    ),
)
