"""The subcommands of `lrm`: each reads its options, does one thing and prints the result."""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BadInput, WorkFailed
from core.options import (
    Parser,
    add_config_options,
    add_json_option,
    add_root_options,
    load_config,
)
from dataset.root import open_root
from dataset.snapshots.protection import MAX_PROTECT_DAYS, PROTECT_DAYS
from pipelines.cli.commands import build as building
from pipelines.cli.commands import completion as completion_command
from pipelines.cli.commands import doctor as doctor_command
from pipelines.cli.commands import evaluate as evaluate_command
from pipelines.cli.commands import multiview as multiview_command
from pipelines.cli.commands import reconstruct as reconstruct_command
from pipelines.cli.commands import upkeep as upkeep
from pipelines.cli.commands import weights as weights_command

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


def _report_options(parser: Parser) -> None:
    add_root_options(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder that gets it")
    parser.add_argument(
        "--thumbnails",
        type=int,
        default=8,
        metavar="N",
        help="objects per reason to show, rendered now if their files are at hand; 0 shows some "
        "without pictures and needs no Blender [default: 8]",
    )
    parser.add_argument(
        "--shards",
        type=int,
        default=12,
        metavar="N",
        help="shards of which samples are shown [default: 12]",
    )


def _report(arguments: argparse.Namespace) -> int:
    from pipelines.report.write_report import write_report

    if min(arguments.thumbnails, arguments.shards) < 0:
        raise BadInput("--thumbnails and --shards must be at least 0")
    sizes = (arguments.thumbnails, arguments.shards)
    found = write_report(open_root(arguments.root), arguments.out, *sizes)
    print(json.dumps(found) if arguments.json else found["report"])
    return 0


def _inspect_options(parser: Parser) -> None:
    add_root_options(parser)
    parser.add_argument("object", metavar="OBJECT", help="an asset id, such as objaverse:UID")
    parser.add_argument("--sheet", metavar="FILE", help="write its contact sheet as a picture")


def _inspect(arguments: argparse.Namespace) -> int:
    from pipelines.build.dataset_status import inspect_object
    from pipelines.cli.tables import show_object
    from pipelines.report.object_sheet import write_sheet

    root = open_root(arguments.root)
    found = inspect_object(root, arguments.object)
    if arguments.sheet:
        write_sheet(root, found, arguments.sheet)
    if arguments.json:
        print(json.dumps(found))
    else:
        show_object(found)
    return 0


def _snapshot_options(parser: Parser) -> None:
    add_root_options(parser)
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
    parser.add_argument(
        "--protect-days",
        type=float,
        default=PROTECT_DAYS,
        metavar="N",
        help=f"days for which no shard of it may be deleted [default: {PROTECT_DAYS}]",
    )
    parser.add_argument("--list", action="store_true", help="list the snapshots there are")


def _snapshot(arguments: argparse.Namespace) -> int:
    from pipelines.export.create_snapshot import freeze

    if not 0 <= arguments.validation_share < 1:
        raise BadInput("--validation-share must be at least 0 and less than 1")
    if not 0 <= arguments.protect_days <= MAX_PROTECT_DAYS:
        raise BadInput(f"--protect-days must be between 0 and {MAX_PROTECT_DAYS}")
    root = open_root(arguments.root)
    if arguments.list:
        return upkeep.show_snapshots(root, arguments.json)
    chosen = (arguments.where, arguments.validation_share, arguments.protect_days)
    manifest = freeze(root, *chosen)
    if arguments.json:
        print(json.dumps(manifest))
    else:
        splits = ", ".join(f"{count} {split}" for split, count in manifest["splits"].items())
        print(f"snapshot {manifest['snapshot']}: {manifest['samples']} samples ({splits})")
        print(f"credits: {manifest['credits']}; protected until {manifest['protected_until']}")
    return 0


def _export_options(parser: Parser) -> None:
    add_root_options(parser)
    parser.add_argument("--snapshot", required=True, metavar="ID", help="id of the snapshot")
    parser.add_argument(
        "--layout", required=True, help="instantmesh or trellis: whose folders to write"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder that gets them")
    parser.add_argument(
        "--split",
        choices=("train", "validation", "all"),
        default="all",
        help="which samples of the snapshot [default: all]",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes that write objects, 0.6 GB each at 512 pixels [default: one per core]",
    )


def _export(arguments: argparse.Namespace) -> int:
    from pipelines.export.export_snapshot import export

    if arguments.workers < 1:
        raise BadInput("--workers must be at least 1")
    pinned = (arguments.snapshot, arguments.layout, arguments.split)
    found = export(open_root(arguments.root), *pinned, arguments.out, arguments.workers)
    if arguments.json:
        print(json.dumps(found))
    else:
        there = f" ({found['skipped']} lay there already)" if found["skipped"] else ""
        print(f"exported {found['exported']} of {found['objects']} objects{there}: {found['out']}")
    if found["failed"]:
        why = next(iter(found["failed"].values()))
        raise WorkFailed(f"{len(found['failed'])} objects could not be exported; the first: {why}")
    return 0


def _train_options(parser: Parser) -> None:
    from pipelines.cli.dry_run import dry_run_options
    from train.recipes.registry import RECIPES

    parser.add_argument("--status", metavar="DIR", help="say where a run stands, and end")
    add_json_option(parser)
    recipes = parser.add_subparsers(dest="recipe", metavar="RECIPE", parser_class=Parser)
    for name, kind in RECIPES.items():
        example = f"example:\n  lrm train {name} --root DATASET --snapshot ID --out RUN"
        recipe = recipes.add_parser(
            name, help=kind.purpose, description=kind.purpose, epilog=example
        )
        add_config_options(recipe, kind.config)
        dry_run_options(recipe)
        add_json_option(recipe)


def _train(arguments: argparse.Namespace) -> int:
    from pipelines.cli.dry_run import is_dry_run, print_dry_run
    from pipelines.launch.ray_train import launch
    from train.recipes.registry import RECIPES

    name = arguments.recipe
    if arguments.status is not None:
        return _train_status(arguments)
    if name is None:
        raise BadInput(f"give a recipe ({', '.join(RECIPES)}), or --status DIR")
    if is_dry_run(arguments):
        print_dry_run(name, arguments)
        return 0
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


def _train_status(arguments: argparse.Namespace) -> int:
    from pipelines.cli.train_status import run_status, show_run_status

    found = run_status(Path(arguments.status))
    if arguments.json:
        print(json.dumps(found))
    else:
        show_run_status(found)
    return 0


COMMANDS = (
    Command(
        name="build",
        purpose="Plan and do whatever is missing; the same command again is the refresh.",
        example="lrm build --source DIR --captions FILE.csv --root DATASET",
        options=building.build_options,
        run=building.build,
    ),
    Command(
        name="plan",
        purpose="Say what build would do and what it would cost; changes nothing.",
        example="lrm plan --source DIR --captions FILE.csv --root DATASET",
        options=building.plan_options,
        run=building.plan,
    ),
    Command(
        name="status",
        purpose="Show the funnel: listed, kept, dropped per reason, failed per kind.",
        example="lrm status --root DATASET",
        options=add_root_options,
        run=building.status,
    ),
    Command(
        name="inspect",
        purpose="Show everything known of one object.",
        example="lrm inspect --root DATASET objaverse:UID --sheet sheet.png",
        options=_inspect_options,
        run=_inspect,
    ),
    Command(
        name="report",
        purpose="Write one HTML page: funnel, dropped and kept objects in pictures, time, bytes.",
        example="lrm report --root DATASET --out REPORT",
        options=_report_options,
        run=_report,
    ),
    Command(
        name="verify",
        purpose="Read every shard again, against its index and checksums; name what is damaged.",
        example="lrm verify --root DATASET",
        options=upkeep.verify_options,
        run=upkeep.verify,
    ),
    Command(
        name="retry",
        purpose="Forget failures, so that the next build tries again.",
        example="lrm retry --root DATASET --kind timeout",
        options=upkeep.retry_options,
        run=upkeep.retry,
    ),
    Command(
        name="remove",
        purpose="Take objects down: gone from every later snapshot, never built again.",
        example="lrm remove --root DATASET objaverse:UID --reason 'asked by its author'",
        options=upkeep.remove_options,
        run=upkeep.remove,
    ),
    Command(
        name="compact",
        purpose="Free the space of samples that nothing counts on; says what holds bytes back.",
        example="lrm compact --root DATASET --dry-run",
        options=upkeep.compact_options,
        run=upkeep.compact,
    ),
    Command(
        name="snapshot",
        purpose="Freeze the kept samples for training; prints the snapshot's id.",
        example="lrm snapshot --root DATASET",
        options=_snapshot_options,
        run=_snapshot,
    ),
    Command(
        name="export",
        purpose="Write a snapshot in the folder layout of another trainer; again: go on.",
        example="lrm export --root DATASET --snapshot ID --layout instantmesh --out DIR",
        options=_export_options,
        run=_export,
    ),
    Command(
        name="train",
        purpose="Train on a snapshot; the same command again goes on from the last checkpoint.",
        example="lrm train nerf --root DATASET --snapshot ID --out RUN --num-workers 2",
        options=_train_options,
        run=_train,
    ),
    Command(
        name="weights",
        purpose="Write the model of a training run as a file of weights.",
        example="lrm weights --run RUN --out model.safetensors",
        options=weights_command.weights_options,
        run=weights_command.weights,
    ),
    Command(
        name="multiview",
        purpose="One picture of an object into six views of it, by Zero123++.",
        example="lrm multiview chair.png --pipeline zero123plus --out VIEWS",
        options=multiview_command.multiview_options,
        run=multiview_command.multiview,
    ),
    Command(
        name="reconstruct",
        purpose="Six views of an object into its mesh: .glb, .obj or .ply.",
        example="lrm reconstruct VIEWS --mesh RUN --out chair.glb",
        options=reconstruct_command.reconstruct_options,
        run=reconstruct_command.reconstruct,
    ),
    Command(
        name="evaluate",
        purpose="Judge a model or meshes: PSNR, SSIM, LPIPS, Chamfer distance, F-score.",
        example="lrm evaluate --root DATASET --snapshot ID --mesh RUN --out RESULT",
        options=evaluate_command.evaluate_options,
        run=evaluate_command.evaluate,
    ),
    Command(
        name="doctor",
        purpose="Say what is missing on this machine, and the line that mends it.",
        example="lrm doctor --for build --for gpu",
        options=doctor_command.doctor_options,
        run=doctor_command.doctor,
    ),
    Command(
        name="completion",
        purpose="Print what completes lrm's commands and options in a shell.",
        example='eval "$(lrm completion bash)"',
        options=completion_command.completion_options,
        run=completion_command.completion,
    ),
)
