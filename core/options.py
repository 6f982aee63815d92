"""Command-line options made from configurations: every field can be set, and nothing else."""

import argparse
import difflib
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import yaml

from core.config import Config, merge, read_yaml
from core.errors import BadInput
from core.option_fields import choices_of, default_text, is_switch, leaves, values_text
from core.option_help import command_lines, help_lines, invocation, shown_options

__all__ = [
    "Parser",
    "add_config_options",
    "add_json_option",
    "add_old_option",
    "add_root_options",
    "add_wait_option",
    "given_values",
    "load_config",
]

ConfigType = TypeVar("ConfigType", bound=Config)
_DEST = "config_values"
_METAVARS = {"whole": "N", "number": "NUMBER", "list": "LIST"}
"""What stands for a value in the help, by the first word of the values that an option takes."""
_SHORT_SWITCH_NOTE = "On/off options: --NAME switches on, --no-NAME off."
_SWITCH_NOTE = (
    "On/off options: --NAME or --NAME true switches on, --no-NAME or --NAME false off;\n"
    "`.enabled` may be left out after --no-, as in --no-filters.caption."
)


class _Alone(str):
    """The value of an on/off option without a value: equal to a typed `true`, but another
    object."""

    __slots__ = ()


_ALONE = _Alone("true")


class Parser(argparse.ArgumentParser):
    """An argument parser whose help fits a screen and whose errors are one line."""

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
        self._populate = populate
        self._command_groups: Mapping[str, Sequence[str]] = {}
        self._common: list[str] | None = None

    def populate(self) -> None:
        """Add the options now, if they have not been added yet."""
        if self._populate is not None:
            populate, self._populate = self._populate, None
            populate(self)

    def set_command_groups(self, groups: Mapping[str, Sequence[str]]) -> None:
        """Set the headings of the help, each with the names of the subcommands below it."""
        self._command_groups = groups

    def set_common(self, names: Sequence[str]) -> None:
        """Limit `--help` to these options and add `--help-all`, which shows all of them.

        Call it after the options were added. Raises ValueError if there is no such option.
        """
        unknown = set(names) - set(self._option_string_actions)
        if unknown:
            raise ValueError(f"{self.prog}: no such options: {', '.join(sorted(unknown))}")
        self._common = list(names)
        self.add_argument(
            "--help-all", action=_HelpAll, nargs=0, help="Show all options by group and exit."
        )

    def format_usage(self) -> str:
        """Return the usage line: required options, optional ones as a word, positionals."""
        self.populate()
        needed = [
            invocation(action)
            for action in shown_options(self)
            if action.required or getattr(action, "is_required", False)
        ]
        positionals = [_positional(action) for action in self._actions if not action.option_strings]
        return f"usage: {' '.join([self.prog, *needed, '[OPTIONS]', *positionals])}\n"

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
        result, unknown = super().parse_known_args(*args, **options)
        mistyped = next((word for word in unknown if word.startswith("--")), None)
        if mistyped is not None:
            name = mistyped.partition("=")[0]
            known = [word for action in shown_options(self) for word in action.option_strings]
            self.error(f"unknown option {name}{_suggestion(name, known)}")
        return result, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the closest subcommand if one is unknown."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            what = str(action.metavar).lower()
            hint = _suggestion(str(value), list(action.choices))
            self.error(f"unknown {what} {value}{hint or f'; {self.prog} --help lists them'}")
        super()._check_value(action, value)


class _HelpAll(argparse.Action):
    """Prints all options and exits."""

    def __call__(self, parser: Any, *_: Any) -> None:
        parser._print_message(parser.format_help(everything=True), sys.stdout)
        parser.exit()


def add_root_options(parser: argparse.ArgumentParser) -> None:
    """Add `--root` and `--json`, which every command on a dataset takes."""
    parser.add_argument("--root", required=True, help="Folder or URI of the dataset.")
    add_json_option(parser)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="Print the result as JSON.")


def add_wait_option(parser: argparse.ArgumentParser) -> None:
    """Add `--wait`, for commands that hold the dataset's lock."""
    parser.add_argument(
        "--wait",
        action="store_true",
        help="Wait while another command holds the dataset's lock, instead of failing.",
    )


def add_config_options(parser: argparse.ArgumentParser, config: type[Config]) -> None:
    """Add `--config FILE` and an option for every field: nested fields as `--render.samples 8`."""
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these settings.")
    groups: dict[str, Any] = {"": parser}
    for path, field in leaves(config):
        section = path.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(section, _purpose(config, section))
        description = " ".join((field.description or "").split())
        groups[section].add_argument(
            *_option_names(path, field.annotation),
            action=_Store,
            path=path,
            field=field,
            dest=_DEST,
            default={},
            help=description.replace("%", "%%"),
        )
    _add_old_options(parser, config)


def _purpose(config: type[Config], section: str) -> str:
    """Return the first paragraph of the docstring of a section's configuration."""
    kind: Any = config
    for name in section.split("."):
        kind = kind.model_fields[name].annotation
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def _add_old_options(parser: argparse.ArgumentParser, config: type[Config]) -> None:
    """Add the old names of options, which are not in the help."""
    fields = dict(leaves(config))
    for path, new in config.renamed.items():
        parser.add_argument(
            _option(path),
            action=_Store,
            path=path,
            field=fields[new.path],
            replaced_by=_option(new.path) if new.deprecated else "",
            dest=_DEST,
            default={},
            help=argparse.SUPPRESS,
        )


def add_old_option(parser: argparse.ArgumentParser, old: str, new: str) -> None:
    """Accept the old name of an option that was added under its new name; it is not in the help."""
    option = parser._option_string_actions[new]
    parser.add_argument(
        old,
        action=_OldOption,
        type=option.type or str,
        replaced_by=new,
        dest=option.dest,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


class _OldOption(argparse.Action):
    """Stores a value under the name of the option that has replaced this one."""

    def __init__(self, replaced_by: str, **options: Any) -> None:
        super().__init__(**options)
        self._replaced_by = replaced_by

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        _warn(parser, option_string, self._replaced_by)
        setattr(namespace, self.dest, values)


def _warn(parser: argparse.ArgumentParser, old: str | None, new: str) -> None:
    print(f"{parser.prog}: warning: {old} is deprecated; use {new}", file=sys.stderr)


def load_config(config: type[ConfigType], arguments: argparse.Namespace) -> ConfigType:
    """Return the configuration of `--config` with the options of the command line on top.

    Raises BadInput with one line that names every wrong key or value.
    """
    where = f"{arguments.config} and options" if arguments.config else "options"
    return config.load(given_values(arguments), where=where)


def given_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given, without defaults.

    Raises BadInput if the file of `--config` cannot be read.
    """
    file = arguments.config
    return merge(read_yaml(file) if file else {}, getattr(arguments, _DEST))


class _Store(argparse.Action):
    """Stores a value at its path in a nested mapping."""

    def __init__(self, path: str, field: Any, replaced_by: str = "", **options: Any) -> None:
        self._path = path
        self._annotation = field.annotation
        self._replaced_by = replaced_by
        self.is_switch = is_switch(field.annotation)
        self.is_required = field.is_required()
        default = None if self.is_required else field.get_default(call_default_factory=True)
        self.shown_default = default_text(path, default)
        self.values = values_text(field.annotation, field.metadata)
        self.suggested = choices_of(field.annotation, field.metadata)
        """Words that a shell completes to; a field may take others."""
        super().__init__(
            # An on/off option may stand alone: `--geometry` is `--geometry true`.
            nargs="?" if self.is_switch else None,
            const=_ALONE,
            metavar=_metavar(path, self.values),
            **options,
        )

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        if self._replaced_by:
            _warn(parser, option_string, self._replaced_by)
        if self.is_switch and option_string and option_string.startswith("--no-"):
            if values is not _ALONE:
                parser.error(f"{option_string} takes no value, got {values!r}")
            values = "false"
        nested: Any = _parse(values, self._annotation)
        for part in reversed(self._path.split(".")):
            nested = {part: nested}
        setattr(namespace, self.dest, merge(getattr(namespace, self.dest), nested))


def _option(path: str) -> str:
    return "--" + path.replace("_", "-")


def _option_names(path: str, annotation: Any) -> list[str]:
    """Return the names of a field's option: of an on/off one also those that switch it off."""
    name = _option(path)
    if not is_switch(annotation):
        return [name]
    off = f"--no-{name.removeprefix('--')}"
    short = off.removesuffix(".enabled")
    return list(dict.fromkeys([name, off, short]))


def _metavar(path: str, values: str) -> str:
    name = path.rpartition(".")[2].upper()
    kind = values.partition(" ")[0]
    return name if " or " in values else _METAVARS.get(kind, name)


def _positional(action: argparse.Action) -> str:
    name = invocation(action)
    if isinstance(action, argparse._SubParsersAction):
        return f"{name} ..."
    return f"[{name} ...]" if action.nargs == "*" else name


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _parse(text: str, annotation: Any) -> Any:
    """Return a value as YAML reads it, except that text stays text where the field takes text."""
    takes_text = annotation is str or (
        isinstance(annotation, types.UnionType | type(typing.Union[int, str]))  # noqa: UP007
        and str in typing.get_args(annotation)
    )
    if takes_text:
        return None if text == "null" and annotation is not str else text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise BadInput(f"cannot read the value {text!r}") from None
