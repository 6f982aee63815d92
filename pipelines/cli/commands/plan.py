"""`lrm plan`: show what build would do and what it would cost."""

import argparse
import json

from core.options import Parser, add_config_options, add_json_option, load_config
from core.storage import Storage
from dataset.root import check_root
from pipelines.cli.command import Command
from pipelines.cli.loss_option import add_accept_loss_option

__all__ = ["COMMAND", "PLAN_COMMON", "plan_options"]

PLAN_COMMON = (
    *("--source", "--root", "--captions", "--config", "--limit", "--lvis", "--rig", "--geometry"),
    *("--render.resolution", "--render.samples", "--render.device"),
    *("--filters.licence.enabled", "--filters.licence.allowed", "--filters.caption.enabled"),
    *("--address", "--json"),
)
"""Options of `lrm plan` and `lrm build` that `--help` shows."""


def plan_options(parser: Parser) -> None:
    """Add the options of `lrm plan`."""
    from pipelines.building.build_config import BuildConfig

    add_config_options(parser, BuildConfig)
    add_accept_loss_option(parser)
    add_json_option(parser)


def _run(arguments: argparse.Namespace) -> int:
    """Print the work and its cost."""
    from pipelines.building.build_config import BuildConfig
    from pipelines.building.object_table import latest_of
    from pipelines.building.plan import load_plan
    from pipelines.cli.tables import print_warnings, show_plan
    from pipelines.sources import open_source

    config = load_config(BuildConfig, arguments).checked()
    root = Storage(config.root)
    check_root(root)
    source = open_source(config.source, config.fetch, config.captions)
    plan = load_plan(config, source, root, latest_of(root))
    print_warnings("plan", plan.warnings())
    forecast = plan.to_dict(arguments.accept_loss)
    if arguments.json:
        print(json.dumps(forecast))
    else:
        show_plan(forecast, plan.notes())
    plan.losses.check(arguments.accept_loss)
    return 0


COMMAND = Command(
    example="lrm plan --source DIR --captions FILE.csv --root DATASET",
    options=plan_options,
    run=_run,
    common=PLAN_COMMON,
)
