"""The page docs/reference/options.md: `python -m pipelines.cli.options_page > FILE` writes it."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.options import Parser
from core.options.help_text import invocation, meaning, option_groups, values_and_default
from pipelines.cli.entry import make_parser
from pipelines.cli.registry import GROUPS
from train.recipes.registry import RECIPES

__all__ = ["render_page"]

_HEAD = """# Options

For people who look up an option of `lrm`: every option of every command, with the values that it
takes and its default, as `lrm COMMAND --help-all` shows them. `lrm COMMAND --help` shows the ones
that people use most. This page is generated:
`python -m pipelines.cli.options_page > docs/reference/options.md`.

- A setting can also be written in the YAML file of `--config`, where each dot of the option opens a
  mapping: `--render.samples 8` is `render: {samples: 8}`. Options override the file.
- `--[no-]NAME` is an on/off option: `--NAME` or `--NAME true` switches it on, `--no-NAME` or
  `--NAME false` off. After `--no-` the ending `.enabled` may be left out: `--no-filters.caption`.
- Lists and mappings are written as in YAML: `--filters.licence.allowed '[by, cc0]'`.
- An option of a command that is given twice with different values is an error, unless it collects
  them, as `lrm compact --release` does. Of a setting the last value counts, so that a script's
  options can be overridden behind them; mappings are merged, and two lists are an error.
- An option that was renamed is still accepted under its old name, with a warning that names the
  new one.
"""
_TOGETHER = (("build", "plan"),)
"""Commands that have most of their options in common: these are listed once."""
_WRITTEN_DEFAULT = re.compile(r" \[(?:[^]]*; )?default: ([^]]*)\]$")
"""A default that the text of an option names, because it is computed."""
_UNIVERSAL = {"-h, --help", "--help-all"}


@dataclass(frozen=True)
class _Row:
    """An option in a table."""

    group: str
    option: str
    values: str
    default: str
    meaning: str


def render_page() -> str:
    """Return the page for the options of today."""
    lines = [_HEAD]
    for title, entries in GROUPS.items():
        lines.append(f"## {title.capitalize()}\n")
        names = [entry.name for entry in entries]
        for name in names:
            together = next((group for group in _TOGETHER if name in group), (name,))
            if name == together[0]:
                lines += _section(together)
            if name == "train":
                lines += _section([f"train {recipe}" for recipe in RECIPES])
    return "\n".join(lines).rstrip() + "\n"


def _section(commands: Sequence[str]) -> Iterator[str]:
    """Yield the tables of commands: what all of them have, then what one alone has."""
    parsers = {command: _parser_of(command) for command in commands}
    rows = {command: _rows(parser) for command, parser in parsers.items()}
    first, *others = rows.values()
    shared = [row for row in first if all(row in other for other in others)]
    yield f"### {', '.join(f'lrm {command}' for command in commands)}\n"
    for command, parser in parsers.items():
        prefix = f"`lrm {command}`: " if others else ""
        yield f"{prefix}{parser.description}\n"
    yield from _tables(shared)
    for command, own in rows.items():
        extra = [row for row in own if row not in shared]
        if extra and others:
            yield f"Only `lrm {command}`:\n"
            yield from _tables(extra)


def _tables(rows: Sequence[_Row]) -> Iterator[str]:
    if not rows:
        return
    yield "| option | values | default | meaning |\n|---|---|---|---|"
    for row in sorted(rows, key=lambda row: row.group != ""):
        cells = (f"`{row.option}`", row.values, row.default, row.meaning)
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
    yield ""


def _rows(parser: Parser) -> list[_Row]:
    positionals = [
        action
        for action in parser._actions
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction)
    ]
    rows = [_row("", action) for action in positionals]
    for title, _, actions in option_groups(parser):
        rows += [_row(title, action) for action in actions]
    return [row for row in rows if row.option not in _UNIVERSAL]


def _row(group: str, action: argparse.Action) -> _Row:
    values, default = values_and_default(action)
    text = meaning(action)
    noted = _WRITTEN_DEFAULT.search(text)
    if noted is not None:
        text, default = f"{text[: noted.start()].removesuffix('.')}.", noted[1]
    return _Row("" if group == "options" else group, invocation(action), values, default, text)


def _parser_of(command: str) -> Parser:
    parser = make_parser()
    for word in command.split():
        parser.populate()
        below = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = below.choices[word]
    parser.populate()
    return parser


if __name__ == "__main__":
    sys.stdout.write(render_page())
