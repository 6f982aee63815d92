"""`lrm train`: train a recipe on a snapshot, or show where a run stands."""

import argparse
import json
from pathlib import Path

from core.errors import BadInput
from core.options import Parser, add_config_options, add_json_option, load_config
from pipelines.cli.command import Command

__all__ = ["COMMAND"]


def _options(parser: Parser) -> None:
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


def _run(arguments: argparse.Namespace) -> int:
    from pipelines.cli.dry_run import is_dry_run, print_dry_run
    from pipelines.launch.ray_train import launch
    from train.recipes.registry import RECIPES

    name = arguments.recipe
    if arguments.status is not None:
        return _status(arguments)
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


def _status(arguments: argparse.Namespace) -> int:
    from pipelines.cli.train_status import run_status, show_run_status

    found = run_status(Path(arguments.status))
    if arguments.json:
        print(json.dumps(found))
    else:
        show_run_status(found)
    return 0


COMMAND = Command(
    name="train",
    purpose="Train on a snapshot; the same command again goes on from the last checkpoint.",
    example="lrm train nerf --root DATASET --snapshot ID --out RUN --num-workers 2",
    options=_options,
    run=_run,
)
