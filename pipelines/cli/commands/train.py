"""`lrm train`: train a recipe on a snapshot, or show the state of a run."""

import argparse
import json
from pathlib import Path

from core.errors import BadInput
from core.options import (
    Parser,
    add_config_options,
    add_json_option,
    add_monitoring_options,
    load_config,
)
from pipelines.cli.command import Command

__all__ = ["COMMAND"]

_COMMON = ("--dry-run", "--json")
"""Options that `--help` shows after those of a recipe."""


def _options(parser: Parser) -> None:
    """Add the options of `lrm train`; those of a recipe are added when it is used."""
    from train.recipes.registry import add_recipe_parsers

    parser.add_argument(
        "--status", metavar="DIR", help="Show the state of the run in this folder and exit."
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="With --status: read the files of all checkpoints and compare their hashes; exit code "
        "1 if one is damaged.",
    )
    add_json_option(parser)
    example = "lrm train RECIPE --root DATASET --snapshot ID --out RUN"
    add_recipe_parsers(parser, _recipe_options, required=False, example=example)


def _recipe_options(name: str, parser: Parser) -> None:
    """Add the options of a recipe; its configuration imports torch."""
    from pipelines.cli.dry_run import dry_run_options
    from train.recipes.registry import RECIPES

    add_config_options(parser, RECIPES[name].config)
    dry_run_options(parser)
    add_monitoring_options(parser)
    add_json_option(parser)
    parser.set_common([*RECIPES[name].common, *_COMMON])


def _run(arguments: argparse.Namespace) -> int:
    """Show the state of a run, print the sizes of one (`--dry-run`), or train."""
    from train.recipes.registry import RECIPES

    name = arguments.recipe
    if arguments.status is not None:
        return _status(arguments)
    if arguments.verify:
        raise BadInput("--verify needs --status DIR")
    if name is None:
        raise BadInput(f"give a recipe ({', '.join(RECIPES)}), or --status DIR")

    from pipelines.cli.dry_run import is_dry_run, print_dry_run
    from pipelines.launch.ray_train import launch

    if is_dry_run(arguments):
        print_dry_run(name, arguments)
        return 0
    summary = launch(name, load_config(RECIPES[name].config, arguments), arguments.metrics_port)
    if arguments.json:
        print(json.dumps(summary))
        return 0
    first = summary["first_step"]
    print(f"resumed after step {first}" if first else "started at step 1")
    if summary["loss"] is not None:
        losses = (summary["loss_first"], summary["loss"])
        print("loss {:.4f} at the first step, {:.4f} at the last".format(*losses))
    print(f"metrics, checkpoints and previews: {summary['out']}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from pipelines.cli.train_status import run_status, show_run_status

    status = run_status(Path(arguments.status), verify=arguments.verify)
    if arguments.json:
        print(json.dumps(status))
    else:
        show_run_status(status)
    return int(any(row["damaged"] for row in status["checkpoints"]))


COMMAND = Command(
    example="lrm train nerf --root DATASET --snapshot ID --out RUN --num-workers 2",
    options=_options,
    run=_run,
)
