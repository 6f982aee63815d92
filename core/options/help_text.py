"""The text of `--help`: the options that people use, or with `--help-all` every option by group."""

import argparse
import inspect
import re
import shutil
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.options.field_values import default_text

__all__ = [
    "command_lines",
    "help_lines",
    "help_width",
    "invocation",
    "meaning",
    "option_groups",
    "shown_options",
    "values_and_default",
]

_MAX_NAMES = 24
"""Columns for the options' names; a longer one gets a line of its own."""
_SENTENCE_END = re.compile(r"(?<=[\w)`'\"%\]])\. +(?=[A-Z`])")


def shown_options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the options that are in the help, in the order in which they were added."""
    return [
        action
        for action in parser._actions
        if action.option_strings and action.help is not argparse.SUPPRESS
    ]


def invocation(action: argparse.Action) -> str:
    """Return how an option is written: `--rig RIG`, `--[no-]geometry`, `-h, --help`."""
    if not action.option_strings:
        return str(action.metavar or action.dest)
    first, *others = action.option_strings
    if others and others[0].startswith("--no-"):
        return f"--[no-]{first.removeprefix('--')}"
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {action.metavar or action.dest.upper()}"


def meaning(action: argparse.Action, *, short: bool = False) -> str:
    """Return the text of an option in one line; `short` keeps its first sentence."""
    text = " ".join((action.help or "").replace("%%", "%").split())
    if not short or "[" in text:
        return text
    first = _SENTENCE_END.split(text)[0]
    return first if first.endswith(".") or first == text else f"{first}."


def values_and_default(action: argparse.Action) -> tuple[str, str]:
    """Return what an option takes and its default, as text; `required` is a default, too."""
    # argparse calls a list of positionals required even if it may be empty.
    required = action.required and action.nargs != "*"
    required = required or getattr(action, "is_required", False)
    values = getattr(action, "values", "")
    if not values and action.nargs != 0:
        values = ", ".join(map(str, action.choices)) if action.choices else _type_text(action)
    default = getattr(action, "shown_default", None)
    if default is None:
        plain = None if action.nargs == 0 or action.default is argparse.SUPPRESS else action.default
        plain = None if plain == [] else plain  # an option that collects values
        name = (action.option_strings or [action.dest])[0]
        default = default_text(name, plain)
    return values, "required" if required else default


def help_lines(parser: argparse.ArgumentParser, common: Sequence[str] | None) -> Iterator[str]:
    """Yield the lines of the sections of options; `common` limits them to those options."""
    positionals = [
        action
        for action in parser._actions
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction)
    ]
    if common is None:
        options = list(option_groups(parser))
    else:
        by_name = {name: action for action in shown_options(parser) for name in _names(action)}
        names = dict.fromkeys([*common, "--help", "--help-all"])
        options = [("options", "", [by_name[name] for name in names if name in by_name])]
    sections = [("arguments", "", positionals), *options] if positionals else options
    longest = max(len(invocation(action)) for _, _, actions in sections for action in actions)
    layout = _Layout(help_width(), min(_MAX_NAMES, longest) + 4, short=common is not None)
    for title, description, actions in sections:
        yield ""
        yield f"{title}:"
        if description:
            yield from (f"  {line}" for line in textwrap.wrap(description, layout.width - 2))
        for action in actions:
            yield from _option_lines(action, layout)


def option_groups(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, str, list[argparse.Action]]]:
    """Yield title, description and options of every group that has options in the help."""
    shown = set(map(id, shown_options(parser)))
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if id(action) in shown]
        if actions:
            yield group.title or "options", group.description or "", actions


def command_lines(
    action: "argparse._SubParsersAction[argparse.ArgumentParser]",
    groups: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    """Yield the lines that name the subcommands, one each, by group."""
    purposes = {choice.dest: choice.help or "" for choice in action._choices_actions}
    longest = max(map(len, purposes))
    for title, names in groups.items():
        yield ""
        yield f"{title}:"
        for name in names:
            yield f"  {name:<{longest}}  {purposes[name]}"


@dataclass(frozen=True)
class _Layout:
    """Columns of the help, and whether it keeps only the first sentence of each text."""

    width: int
    column: int
    """Where the texts begin."""
    short: bool


def _option_lines(action: argparse.Action, layout: _Layout) -> Iterator[str]:
    name, column = invocation(action), layout.column
    text = _text(action, short=layout.short)
    lines = textwrap.wrap(text, layout.width - column, break_on_hyphens=False) or [""]
    if len(name) + 4 > column:
        yield f"  {name}"
    else:
        yield f"  {name:<{column - 2}}{lines.pop(0)}".rstrip()
    yield from (" " * column + line for line in lines)


def _text(action: argparse.Action, *, short: bool) -> str:
    text = meaning(action, short=short)
    if "[default" in text:
        return text
    values, default = values_and_default(action)
    choices = action.choices or getattr(action, "suggested", None)
    is_switch = getattr(action, "is_switch", False)
    notes = [values] if choices and not is_switch else []
    if default:
        notes.append(default if default == "required" else f"default: {default}")
    return f"{text} [{'; '.join(notes)}]".strip() if notes else text


def _names(action: argparse.Action) -> list[str]:
    return list(action.option_strings)


def _type_text(action: argparse.Action) -> str:
    kind: Any = action.type
    if inspect.isfunction(kind):
        kind = typing.get_type_hints(kind).get("return")
    return {int: "whole number", float: "number"}.get(kind, "text")


def help_width() -> int:
    """Return the columns that help may fill: the terminal's, which COLUMNS overrides."""
    return max(60, shutil.get_terminal_size().columns - 1)
