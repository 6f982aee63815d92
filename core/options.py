"""Command-line options made from configurations: every field can be set, and nothing else."""

import argparse
import difflib
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

import pydantic
import yaml

from core.config import Config, merge, read_yaml
from core.errors import BadInput

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


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with a suggestion for a mistyped option."""

    def __init__(self, populate: Callable[["Parser"], None] | None = None, **options: Any) -> None:
        """`populate` adds the options when the parser is used and not before: so one command does
        not import what only the others need."""
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=layout, **options)
        self._populate = populate

    def populate(self) -> None:
        """Add the options now, if they are not there yet."""
        if self._populate is not None:
            populate, self._populate = self._populate, None
            populate(self)

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """As argparse does, but an unknown option names the closest one there is."""
        self.populate()
        found, unknown = super().parse_known_args(*args, **options)
        mistyped = next((word for word in unknown if word.startswith("--")), None)
        if mistyped is not None:
            name = mistyped.partition("=")[0]
            close = difflib.get_close_matches(name, self._option_string_actions, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            self.error(f"unknown option {name}{hint}")
        return found, unknown


def add_root_options(parser: argparse.ArgumentParser) -> None:
    """Add `--root` and `--json`, which every command on a dataset takes."""
    parser.add_argument("--root", required=True, help="folder or URI of the dataset")
    add_json_option(parser)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_wait_option(parser: argparse.ArgumentParser) -> None:
    """Add `--wait`, of commands that only one may run at a time."""
    parser.add_argument(
        "--wait",
        action="store_true",
        help="if another command is writing shards here, wait for it instead of ending",
    )


def add_config_options(parser: argparse.ArgumentParser, config: type[Config]) -> None:
    """Add `--config FILE` and an option for every field: nested fields as `--render.samples 8`."""
    parser.usage = f"{parser.prog} [OPTIONS]"
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of the settings below")
    groups: dict[str, Any] = {"": parser}
    for path, field in _leaves(config):
        section = path.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        description = " ".join((field.description or "").split())
        default = (
            "required"
            if field.is_required()
            else f"default: {_shown(field.get_default(call_default_factory=True))}"
        )
        groups[section].add_argument(
            _option(path),
            action=_Store,
            # A switch may stand alone: `--geometry` is `--geometry true`.
            nargs="?" if _is_switch(field.annotation) else None,
            const="true",
            path=path,
            annotation=field.annotation,
            dest=_DEST,
            default={},
            metavar=path.rpartition(".")[2].upper(),
            help=f"{description} [{default}]".strip().replace("%", "%%"),
        )
    _add_old_options(parser, config)


def _add_old_options(parser: argparse.ArgumentParser, config: type[Config]) -> None:
    """Add the old names of options, which are not in the help."""
    fields = dict(_leaves(config))
    for path, new in config.renamed.items():
        annotation = fields[new.path].annotation
        parser.add_argument(
            _option(path),
            action=_Store,
            nargs="?" if _is_switch(annotation) else None,
            const="true",
            path=path,
            annotation=annotation,
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
    """The configuration from `--config`, with the options of the command line on top.

    Raises BadInput with one line that names every wrong key or value.
    """
    where = f"{arguments.config} and options" if arguments.config else "options"
    return config.load(given_values(arguments), where=where)


def given_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, and no defaults. Raises BadInput if --config is unreadable."""
    file = arguments.config
    return merge(read_yaml(file) if file else {}, getattr(arguments, _DEST))


class _Store(argparse.Action):
    """Puts a value at its place in a nested mapping."""

    def __init__(self, path: str, annotation: Any, replaced_by: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._path = path
        self._annotation = annotation
        self._replaced_by = replaced_by
        self.suggested = _suggested(annotation)
        """Words that a shell may complete to; there may be other values."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        if self._replaced_by:
            _warn(parser, option_string, self._replaced_by)
        nested: Any = _parse(values, self._annotation)
        for part in reversed(self._path.split(".")):
            nested = {part: nested}
        setattr(namespace, self.dest, merge(getattr(namespace, self.dest), nested))


def _option(path: str) -> str:
    return "--" + path.replace("_", "-")


def _leaves(
    config: type[pydantic.BaseModel], prefix: str = ""
) -> Iterator[tuple[str, pydantic.fields.FieldInfo]]:
    for name, field in config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
            yield from _leaves(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _suggested(annotation: Any) -> list[str]:
    if _is_switch(annotation):
        return ["true", "false"]
    is_union = isinstance(annotation, types.UnionType)
    kinds = typing.get_args(annotation) if is_union else [annotation]
    literals = [kind for kind in kinds if typing.get_origin(kind) is typing.Literal]
    return [str(word) for kind in literals for word in typing.get_args(kind)]


def _is_switch(annotation: Any) -> bool:
    return annotation is bool or bool in typing.get_args(annotation)


def _parse(text: str, annotation: Any) -> Any:
    """A value as YAML reads it, except that text stays text where the field takes text."""
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


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{...}" if value else "{}"
    return "none" if value is None else str(value)
