"""Options made from a configuration: every field can be set, and nothing else."""

import argparse
import types
from collections.abc import Mapping, Set
from typing import Any, TypeVar

import yaml
from pydantic.fields import FieldInfo

from core.config import ABSENT, Config, merge, nested, without
from core.errors import BadInput
from core.options.field_values import (
    choices_of,
    default_text,
    is_switch,
    leaves,
    members,
    placeholder,
    values_text,
)
from core.options.parser import warn_of_old_option
from core.paths.yaml_file import parse_yaml, read_yaml

__all__ = [
    "add_config_options",
    "given_setting",
    "load_config",
    "load_settings",
    "settings_from_options",
]

ConfigType = TypeVar("ConfigType", bound=Config)
_DEST = "config_values"
_INPUTS = frozenset({"root", "source", "captions", "snapshot", "out", "checkpoints", "init"})
"""Settings that name what is read or written: a second value is more often a mistake."""


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
        field = fields[new.path]
        if new.old_type is not None:
            field = FieldInfo(annotation=new.old_type, default=None)
        parser.add_argument(
            *_option_names(path, field.annotation),
            action=_Store,
            # Without a way to combine both names' values, the last option given counts.
            path=path if new.combine else new.path,
            field=field,
            replaced_by=_option(new.path) if new.deprecated else "",
            dest=_DEST,
            default={},
            help=argparse.SUPPRESS,
        )


def load_config(
    config: type[ConfigType],
    arguments: argparse.Namespace,
    defaults: Mapping[str, Any] = types.MappingProxyType({}),
) -> ConfigType:
    """Return the configuration of `--config` with the options of the command line on top.

    `defaults` are values of settings that neither of them has. Raises BadInput with one line that
    names every wrong key or value; without `--config`, settings are named as options.
    """
    given = settings_from_options(config, arguments)
    return load_settings(config, given, arguments.config, defaults)


def load_settings(
    config: type[ConfigType],
    given: Mapping[str, Any],
    file: str | None,
    defaults: Mapping[str, Any] = types.MappingProxyType({}),
) -> ConfigType:
    """Return the configuration of the settings that `settings_from_options` returned.

    `file` is the value of `--config`, for errors; see `load_config`.
    """
    settings = merge(_without_given(config, defaults, given), given)
    if file:
        return config.load(settings, where=f"{file} and options")
    paths = {path for path, _ in leaves(config)}
    return config.load(settings, where="", name_of=lambda path: _name_of(path, paths))


def _without_given(
    config: type[Config], defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the defaults without the settings that are given.

    Otherwise a given mapping would be merged with its default, of which no key could be removed.
    """
    for path, _ in leaves(config):
        names = path.split(".")
        if without(given, names)[1] is not ABSENT:
            defaults, _ = without(defaults, names)
    return defaults


def _name_of(path: str, options: Set[str]) -> str:
    """Return the option of a setting, followed by the keys of a value below it."""
    names = path.split(".")
    for end in range(len(names), 0, -1):
        start = ".".join(names[:end])
        if start in options:
            return ".".join([_option(start), *names[end:]])
    return path


def settings_from_options(config: type[Config], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given, under their new names and without defaults.

    Raises BadInput if the file of `--config` cannot be read, or holds two values of a setting.
    """
    file = arguments.config
    in_file = config.with_new_names(read_yaml(file), where=file) if file else {}
    return merge(in_file, config.with_new_names(getattr(arguments, _DEST), where="options"))


def given_setting(arguments: argparse.Namespace, name: str) -> Any:
    """Return the value of a setting that was given as an option, or None."""
    return getattr(arguments, name, None) or getattr(arguments, _DEST, {}).get(name)


class _Store(argparse.Action):
    """Stores a value at its path in a nested mapping."""

    def __init__(self, path: str, field: Any, replaced_by: str = "", **options: Any) -> None:
        self._path = path
        self._annotation = field.annotation
        self._replaced_by = replaced_by
        self.is_switch = is_switch(field.annotation)
        self.is_required = field.is_required()
        self.off_names = options["option_strings"][1:] if self.is_switch else []
        """Names that switch the option off, and take no value."""
        default = None if self.is_required else field.get_default(call_default_factory=True)
        self.shown_default = default_text(path, default)
        self.values = values_text(field.annotation, field.metadata)
        self.suggested = choices_of(field.annotation, field.metadata)
        """Words that a shell completes to; a field may take others."""
        super().__init__(
            # An on/off option may stand alone: `--geometry` is `--geometry true`.
            nargs="?" if self.is_switch else None,
            metavar=placeholder(field.annotation) or path.rpartition(".")[2].upper(),
            **options,
        )

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        if self._replaced_by:
            warn_of_old_option(parser, option_string, self._replaced_by)
        switches_off = option_string in self.off_names
        if switches_off and values is not None:
            parser.error(f"{option_string} takes no value, got {values!r}")
        if values is None:
            values = "false" if switches_off else "true"
        given, value = getattr(namespace, self.dest), _parse(values, self._annotation)
        # Scripts append options to override their own, so the last value of a setting counts, and
        # mappings are merged. With two lists, users expect both.
        before = _value_at(given, self._path)
        if isinstance(before, list) and isinstance(value, list) and before != value:
            parser.error(f"{option_string} is given twice: give one list with all values")
        if self._path in _INPUTS and before not in (None, value):
            parser.error(f"{option_string} is given twice: {before} and {value}")
        setattr(namespace, self.dest, merge(given, nested(self._path, value)))


def _value_at(values: Any, path: str) -> Any:
    """Return the value at a dotted path of nested mappings; None if there is none."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


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


def _parse(text: str, annotation: Any) -> Any:
    """Return a value as YAML reads it, except that text stays text where the field takes text."""
    if str in members(annotation):
        return None if text == "null" and annotation is not str else text
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        raise BadInput(f"cannot read the value {text!r}") from None
