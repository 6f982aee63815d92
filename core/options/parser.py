"""The argument parser of every command: its help fits a screen, its errors are one line."""

import argparse
import difflib
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from core.options.help_text import (
    command_lines,
    help_lines,
    help_width,
    invocation,
    shown_options,
)

__all__ = ["Parser", "warn_of_old_option"]

_SHORT_SWITCH_NOTE = "On/off options: --NAME switches on, --no-NAME off."
_SWITCH_NOTE = (
    "On/off options: --NAME or --NAME true switches on, --no-NAME or --NAME false off;\n"
    "`.enabled` may be left out after --no-, as in --no-filters.caption."
)


class Parser(argparse.ArgumentParser):
    """An argument parser whose help fits a screen and whose errors are one line.

    argparse keeps the last value of an option that is given twice. Here another value than the
    first one is an error, unless the option collects its values (`append`, `extend`).
    """

    def __init__(
        self,
        populate: Callable[["Parser"], None] | None = None,
        **options: Any,
    ) -> None:
        """Create a parser.

        `populate` adds the options when the parser is first used, so that one command does not
        import what only the others need.
        """
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=layout, add_help=False, **options)
        self.add_argument("-h", "--help", action="help", help="Show this help and exit.")
        self._help_all = self.add_argument("--help-all", action=_HelpAll, help=argparse.SUPPRESS)
        self._populate = populate
        self._command_groups: Mapping[str, Sequence[str]] = {}
        self._common: list[str] | None = None
        self._given: dict[str, str] = {}
        """The words after each option of the command line that is being parsed, by destination."""

    def populate(self) -> None:
        """Add the options now, if they have not been added yet."""
        if self._populate is not None:
            populate, self._populate = self._populate, None
            populate(self)

    def set_command_groups(self, groups: Mapping[str, Sequence[str]]) -> None:
        """Set the headings of the help, each with the names of the subcommands below it."""
        self._command_groups = groups

    def set_common(self, names: Sequence[str]) -> None:
        """Limit `--help` to these options; `--help-all` shows all of them.

        Call it after the options were added. Raises ValueError if there is no such option.
        """
        unknown = set(names) - set(self._option_string_actions)
        if unknown:
            raise ValueError(f"{self.prog}: no such options: {', '.join(sorted(unknown))}")
        self._common = list(names)
        self._help_all.help = "Show all options by group and exit."

    def set_default_text(self, name: str, text: str) -> None:
        """Say in the help where the value of an option comes from that need not be given."""
        action: Any = self._option_string_actions[name]
        action.is_required, action.shown_default = False, text

    def format_usage(self) -> str:
        """Return the usage: required options, optional ones as a word, positionals."""
        self.populate()
        needed = [
            invocation(action)
            for action in shown_options(self)
            if action.required or getattr(action, "is_required", False)
        ]
        positionals = [_positional(action) for action in self._actions if not action.option_strings]
        usage = f"usage: {' '.join([self.prog, *needed, '[OPTIONS]', *positionals])}"
        indent = " " * len("usage: ")
        lines = textwrap.wrap(usage, help_width(), subsequent_indent=indent, break_on_hyphens=False)
        return "\n".join(lines) + "\n"

    def format_help(self, *, everything: bool = False) -> str:
        """Return the help; `everything` includes the options that are not common."""
        self.populate()
        lines = [self.format_usage().rstrip()]
        if self.description:
            lines += ["", self.description]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                lines += command_lines(action, self._command_groups)
        common = None if everything else self._common
        lines += help_lines(self, common)
        if any(getattr(action, "is_switch", False) for action in self._actions):
            lines += ["", _SWITCH_NOTE if common is None else _SHORT_SWITCH_NOTE]
        if self.epilog:
            lines += ["", self.epilog]
        if common is not None:
            rest = len(shown_options(self)) - len(set(common)) - 2  # --help and --help-all
            lines += ["", f"`{self.prog} --help-all` shows the other {rest} options by group."]
        return "\n".join(lines) + "\n"

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """Parse as argparse does, but name the closest option if one is unknown."""
        self.populate()
        self._given = {}
        result, unknown = super().parse_known_args(*args, **options)
        mistyped = next((word for word in unknown if word.startswith("--")), None)
        if mistyped is not None:
            name = mistyped.partition("=")[0]
            self.error(f"unknown option {name}{_suggestion(name, self._suggested_for(name))}")
        if unknown:
            self.error(f"unexpected argument {unknown[0]}")
        return result, unknown

    def _suggested_for(self, name: str) -> list[str]:
        """Return the options that a misspelt one may mean; `--no-` ones only if it has that."""
        return [
            word
            for action in shown_options(self)
            for word in action.option_strings
            if name.startswith("--no-") or not word.startswith("--no-")
        ]

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Return the value of one occurrence of an option; fail if an earlier one differs."""
        value = super()._get_values(action, arg_strings)
        if isinstance(action, argparse._StoreAction) and action.option_strings:
            # As written, because a value may differ from itself (nan).
            words = " ".join(arg_strings)
            first = self._given.setdefault(action.dest, words)
            if first != words:
                self.error(f"{action.option_strings[0]} is given twice: {first} and {words}")
        return value

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the closest subcommand if one is unknown."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            what = str(action.metavar).lower()
            hint = _suggestion(str(value), list(action.choices))
            self.error(f"unknown {what} {value}{hint or f'; {self.prog} --help lists them'}")
        super()._check_value(action, value)


class _HelpAll(argparse.Action):
    """Prints all options and exits."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: Any, *_: Any) -> None:
        parser._print_message(parser.format_help(everything=True), sys.stdout)
        parser.exit()


def warn_of_old_option(parser: argparse.ArgumentParser, old: str | None, new: str) -> None:
    """Print one line that names the option which replaces a deprecated one."""
    print(f"{parser.prog}: warning: {old} is deprecated; use {new}", file=sys.stderr)


def _positional(action: argparse.Action) -> str:
    name = invocation(action)
    if isinstance(action, argparse._SubParsersAction):
        return f"{name} ..."
    return {"*": f"[{name} ...]", "+": f"{name} ...", "?": f"[{name}]"}.get(str(action.nargs), name)


def _suggestion(word: str, known: Sequence[str]) -> str:
    # Without dashes, which would make short names look alike.
    by_name = {name.lstrip("-"): name for name in known}
    close = difflib.get_close_matches(word.lstrip("-"), by_name, n=1)
    return f"; did you mean {by_name[close[0]]}?" if close else ""
