"""`lrm plan`: show what build would do and what it would cost."""

import argparse
import json
import sys

from core.options import Parser, add_json_option
from pipelines.cli.build.build_settings import BuildSettings, add_build_options
from pipelines.cli.command import Command

__all__ = ["COMMAND", "PLAN_COMMON", "plan_options"]

PLAN_COMMON = (
    *("--source", "--root", "--captions", "--config", "--limit", "--lvis", "--rig", "--geometry"),
    *("--render.resolution", "--render.samples", "--render.device"),
    *("--filters.licence.enabled", "--filters.caption.enabled"),
    *("--accept-loss", "--accept-changes", "--address", "--json"),
)
"""Options of `lrm plan` and `lrm build` that `--help` shows."""


def plan_options(parser: Parser) -> None:
    """Add the options of `lrm plan`."""
    add_build_options(parser)
    add_json_option(parser)


def _run(arguments: argparse.Namespace) -> int:
    """Print the work and its cost."""
    from pipelines.cli.build.build_preparation import prepare
    from pipelines.cli.tables import show_plan

    ready = prepare(BuildSettings(arguments))
    forecast = ready.to_dict(arguments)
    if arguments.json:
        print(json.dumps(forecast))
    else:
        show_plan(forecast, ready.lines())
    # The forecast comes first: it shows what is refused.
    sys.stdout.flush()
    ready.check(arguments)
    return 0


COMMAND = Command(
    example="lrm plan --source DIR --captions FILE.csv --root DATASET",
    options=plan_options,
    run=_run,
    common=PLAN_COMMON,
)
