"""The `lrm` command. `python -m pipelines.cli` does the same."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from core.errors import first_line
from core.monitoring.last_error import describe_failure
from core.monitoring.notify import outcome_of
from core.options import Parser, given_setting
from pipelines.cli.command_end import CommandEnd
from pipelines.cli.process_setup import (
    DescriptorReserve,
    check_descriptors,
    flush_output,
    prepare_process,
)
from pipelines.cli.registry import COMMANDS, GROUPS
from pipelines.cli.stop_signals import StopSignals

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

    0: done; 1: work failed, or is left undone because of the environment; 2: bad usage or input;
    130: interrupted; 143: stopped on request.
    """
    words = sys.argv[1:] if argv is None else argv
    prepare_process()
    end, reserve = CommandEnd(), DescriptorReserve()
    with StopSignals(end.report_stop, end.is_reported) as signals:
        try:
            return _run(words, end)
        except BrokenPipeError:
            # The reader has closed the pipe (`lrm status | head`).
            flush_output()
            end.report("failed", message="the reader of the output has closed it")
            return 1
        except BaseException as error:
            reserve.release()
            code = signals.code_of(error)
            if code is not None:
                end.report_stop(code)
                return code
            failure = describe_failure(error)
            if failure is None:
                end.report(outcome_of(error), message=first_line(error))
                raise
            end.report(outcome_of(error), failure.line)
            flush_output()
            return failure.exit_code
        finally:
            reserve.release()


def _run(words: Sequence[str], end: CommandEnd) -> int:
    """Run the command of these words, and its hook if no error is raised."""
    check_descriptors()
    parser = make_parser()
    if not words:
        parser.print_help(sys.stderr)
        return 2
    arguments = parser.parse_args(words)
    end.name = f"lrm {arguments.command}"
    end.continues = not any(
        entry.only_prints for entry in COMMANDS if entry.name == arguments.command
    )
    end.hook = getattr(arguments, "notify", None)
    end.subject = _subject(end.name, arguments)
    code = int(arguments.run(arguments))
    sys.stdout.flush()
    end.report("failed" if code else "done")
    return code


def _subject(name: str, arguments: argparse.Namespace) -> str:
    """Return what the command works on, for the hook."""
    recipe = getattr(arguments, "recipe", None)
    if recipe is None:
        return " ".join(filter(None, (name, given_setting(arguments, "root"))))
    out = given_setting(arguments, "out")
    return f"{name} {recipe} --out {out}" if out else f"{name} {recipe}"
