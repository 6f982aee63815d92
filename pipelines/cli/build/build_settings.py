"""The settings of `lrm build` and `lrm plan`: options, `--config`, the dataset's memory."""

import argparse
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import yaml

from core.options import Parser, add_config_options, load_settings, settings_from_options
from core.options.help_text import shown_options, values_and_default
from core.paths.yaml_file import parse_yaml
from core.storage import Storage
from pipelines.cli.build.loss_option import add_accept_loss_option

if TYPE_CHECKING:
    from pipelines.building.build_config import BuildConfig
    from pipelines.building.guard.remembered import Memory

__all__ = ["BuildSettings", "add_build_options", "as_yaml"]


def add_build_options(parser: Parser) -> None:
    """Add an option for every setting of a build."""
    from pipelines.building.build_config import BuildConfig
    from pipelines.building.guard.remembered import REMEMBERED

    add_config_options(parser, BuildConfig)
    _say_what_is_remembered(parser, (*REMEMBERED, "rig"))
    parser.add_argument(
        "--accept-changes",
        metavar="NAMES",
        type=_names,
        default=(),
        help="Changed settings or versions for which more than 10 core-hours of work may be done "
        "again. A list of names, such as 'render.resolution, renderer'; without them, such a build "
        "is refused.",
    )
    parser.set_default_text("--accept-changes", "")
    add_accept_loss_option(parser)


def _say_what_is_remembered(parser: Parser, names: Collection[str]) -> None:
    """Say in the help that settings, or those of sections, are by default as in the last build."""
    for action in shown_options(parser):
        name = action.option_strings[0]
        if name.removeprefix("--").replace("-", "_").partition(".")[0] in names:
            _, default = values_and_default(action)
            first = "" if default in ("", "required") else f", at first {default}"
            parser.set_default_text(name, f"as the last build{first}")


class BuildSettings:
    """The settings that were given on the command line and in the file of `--config`."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from pipelines.building.build_config import BuildConfig

        self._file = arguments.config
        self.command: str = arguments.command
        # Read once: the file may be a pipe.
        self.given: dict[str, Any] = settings_from_options(BuildConfig, arguments)

    def memory(self) -> "Memory":
        """Return what the dataset remembers; nothing if no root was given, which `config` reports.

        Raises BadInput if the root cannot be used.
        """
        from pipelines.building.guard.remembered import Memory, read_memory

        root = self.given.get("root")
        return read_memory(Storage(root)) if isinstance(root, str) and root else Memory()

    def config(self, memory: "Memory") -> "BuildConfig":
        """Return the configuration: what was given, on top of what the dataset remembers.

        Raises BadInput for settings that are wrong or missing.
        """
        from pipelines.building.build_config import BuildConfig

        rig = self.given.get("rig")
        remembered = memory.of(rig if isinstance(rig, str) else None)
        defaults = {} if remembered is None else remembered.entry()["settings"]
        if remembered is not None and rig is None:
            defaults["rig"] = remembered.config.rig
        return load_settings(BuildConfig, self.given, self._file, defaults).checked()

    def notes(
        self, config: "BuildConfig", memory: "Memory", stage_rigs: Collection[tuple[str, str]]
    ) -> list[str]:
        """Return a line if the dataset remembers no build with this rig.

        `stage_rigs` are the (stage, rig) of which the catalog has events.
        """
        if memory.last_rig is None or config.rig in memory.rigs:
            return []
        others = f"settings that were not given are those of its last build (rig {memory.last_rig})"
        if any(rig == config.rig for _, rig in stage_rigs):
            return [f"the settings of the rig {config.rig} are not recorded: give them; {others}"]
        return [f"the dataset has no build with the rig {config.rig} yet: {others}"]


def _names(text: str) -> tuple[str, ...]:
    """Return the names of a list such as `[render.resolution, renderer]`, as training reads it.

    Without brackets, commas separate the names.
    """
    try:
        values = parse_yaml(text)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"cannot read the list {text!r}") from None
    names = values.split(",") if isinstance(values, str) else values
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise argparse.ArgumentTypeError(
            f"expected a list of names such as '[render.resolution, renderer]', got {text!r}"
        )
    return tuple(name.strip() for name in names if name.strip())


def as_yaml(config: "BuildConfig") -> str:
    """Return a configuration as YAML that `--config` reads."""
    return yaml.safe_dump(config.dump(), sort_keys=False, allow_unicode=True)
