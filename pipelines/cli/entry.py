"""The `lrm` command. `python -m pipelines.cli` does the same."""

import os
import sys
from collections.abc import Sequence

from core.errors import LrmError, first_line
from core.options import Parser
from core.safe_text import printable
from core.storage import object_store_errors
from pipelines.cli.registry import COMMANDS

__all__ = ["main", "make_parser"]


def make_parser() -> Parser:
    """The parser of all subcommands."""
    parser = Parser(prog="lrm", description="Objaverse into training data for LRMs, and training.")
    parser.set_defaults(make_parser=make_parser)
    subparsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for command in COMMANDS:
        command.add(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0, 1 (work failed), 2 (bad input), 130 (interrupted)."""
    name = "lrm"
    try:
        arguments = make_parser().parse_args(argv)
        name = f"lrm {arguments.command}"
        code = arguments.run(arguments)
        sys.stdout.flush()
    except LrmError as error:
        print(f"{name}: error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except object_store_errors() as error:
        problem = printable(first_line(error))
        print(f"{name}: error: the object store cannot be used: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader left (`lrm status | head`): nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return int(code)
