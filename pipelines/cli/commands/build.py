"""`lrm build`: plan the work that is missing, and do it."""

import argparse
import json

from core.options import Parser, add_monitoring_options, add_wait_option
from pipelines.cli.build.build_settings import BuildSettings, as_yaml
from pipelines.cli.build.status_summary import print_status
from pipelines.cli.command import Command
from pipelines.cli.commands.plan import PLAN_COMMON, plan_options

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
    from pipelines.cli.build.run_build import run_build

    root, failures = run_build(arguments)
    code = print_status(root, arguments.json)
    failures.require_none_of_environment()
    return code


COMMAND = Command(
    example="lrm build --source DIR --captions FILE.csv --root DATASET",
    options=_options,
    run=_run,
    common=(*PLAN_COMMON, "--wait", "--filters-only"),
)
