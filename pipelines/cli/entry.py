"""The `lrm` command. `python -m pipelines.cli` does the same."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from core.options import Parser
from pipelines.cli.process_setup import describe_failure, flush_output, prepare_process
from pipelines.cli.registry import COMMANDS, GROUPS

__all__ = ["main", "make_parser"]

_EPILOG = """example:
  lrm build --source objaverse --limit 100 --root DATASET

`lrm COMMAND --help` shows a command's options; guides: docs/README.md."""


def make_parser() -> Parser:
    """Return the parser of all subcommands."""
    parser = Parser(
        prog="lrm",
        description="Turn Objaverse into training data for large reconstruction models, and train.",
        epilog=_EPILOG,
    )
    groups = {title: [entry.name for entry in group] for title, group in GROUPS.items()}
    parser.set_command_groups(groups)
    parser.add_argument("--version", action=_Version, nargs=0, help="Show the version and exit.")
    parser.set_defaults(make_parser=make_parser)
    subparsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for command in COMMANDS:
        command.add(subparsers)
    return parser


class _Version(argparse.Action):
    """Prints the version and exits."""

    def __call__(self, parser: Any, *_: Any) -> None:
        from pipelines.cli.version import project_version

        print(f"lrm {project_version()}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    0: done, 1: work failed, 2: bad usage or input, 130: interrupted, 143: stopped on request.
    """
    name = "lrm"
    words = sys.argv[1:] if argv is None else argv
    prepare_process()
    try:
        parser = make_parser()
        if not words:
            parser.print_help(sys.stderr)
            return 2
        arguments = parser.parse_args(words)
        name = f"lrm {arguments.command}"
        code = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe (`lrm status | head`).
        flush_output()
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command continues", file=sys.stderr)
        return 130
    except BaseException as error:
        failure = describe_failure(error)
        if failure is None:
            raise
        print(f"{name}: {failure.line}", file=sys.stderr)
        flush_output()
        return failure.exit_code
    return int(code)
