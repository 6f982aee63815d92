"""Options that are generated from configurations, for every kind of field."""

import argparse
import contextlib
import math
from typing import Annotated, Literal

import pytest
from pydantic import PositiveFloat

from core.config import Config
from core.errors import BadInput
from core.options import Choices, Parser, add_config_options, add_old_option, load_config
from core.options.help_text import values_and_default
from filters.provenance import LicenceConfig
from pipelines.building.build_config import BuildConfig
from pipelines.cli.registry import COMMANDS


class Inner(Config):
    """Settings of the inner part."""

    size: int = 3
    """Its size."""


def read(*words: str) -> BuildConfig:
    parser = Parser(prog="lrm build")
    add_config_options(parser, BuildConfig)
    return load_config(BuildConfig, parser.parse_args(["--source", "s", "--root", "r", *words]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], False),
        (["--geometry"], True),
        (["--geometry", "--rig", "orbit21"], True),
        (["--rig", "orbit21", "--geometry"], True),
        (["--geometry", "true"], True),
        (["--geometry=true"], True),
        (["--geometry", "false"], False),
        (["--geometry=false"], False),
        (["--geometry", "--geometry", "false"], False),
        (["--no-geometry"], False),
        (["--geometry", "--no-geometry"], False),
        (["--no-geometry", "--geometry"], True),
    ],
)
def test_a_switch_needs_no_value(words, expected):
    assert read(*words).geometry is expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--blender.max-nodes", "max_nodes"),
        ("--blender.max-triangles", "max_triangles"),
        ("--blender.max-texture-pixels", "max_total_pixels"),
    ],
)
def test_old_names_of_limits_still_work_and_warn(old, new, capsys):
    assert getattr(read(old, "7").inspect, new) == 7
    option = f"--inspect.{new.replace('_', '-')}"
    assert capsys.readouterr().err == f"lrm build: warning: {old} is deprecated; use {option}\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("several.drop-unsure", "multi-object.drop-uncertain"),
        ("several.min-share", "multi-object.min-area-share"),
        ("several.min-share-close", "multi-object.min-area-share-narrow-gap"),
        ("several.one-share", "multi-object.single-object-share"),
        ("several.ground-groups", "multi-object.ground-groups"),
        ("several.ground-height", "multi-object.ground-height"),
        ("several.enabled", "multi-object.enabled"),
    ],
)
def test_old_names_of_filter_settings_still_work_and_warn(old, new, capsys):
    value = {"several.ground-groups": "7", "several.enabled": "false"}.get(old, "0.5")
    value = "true" if old == "several.drop-unsure" else value
    config = read(f"--filters.{old}", value)
    assert config == read(f"--filters.{new}", value) != read()
    warning = f"--filters.{old} is deprecated; use --filters.{new}\n"
    assert capsys.readouterr().err == f"lrm build: warning: {warning}"


def test_the_old_name_of_the_time_limit_of_kernel_compilation_still_works(capsys):
    config = read("--blender.warm-seconds", "60")
    assert config.blender.kernel_compile_seconds == 60
    assert "use --blender.kernel-compile-seconds" in capsys.readouterr().err


def test_licence_can_be_spelled_license(capsys):
    config = read("--filters.license.enabled", "--filters.license.allowed", "[by]")
    assert config.filters.licence == LicenceConfig(enabled=True, allowed=("by",))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("--fetch.parts", "--fetch.partial-folder", "scratch"),
        ("--fetch.wait-seconds", "--fetch.rate-limit-wait-seconds", "7.0"),
    ],
)
def test_old_names_of_fetch_options_still_work_and_warn(old, new, value, capsys):
    field = new.removeprefix("--fetch.").replace("-", "_")
    assert str(getattr(read(old, value).fetch, field)) == value
    assert capsys.readouterr().err == f"lrm build: warning: {old} is deprecated; use {new}\n"


def test_an_old_name_of_a_plain_option_sets_the_new_one(capsys):
    parser = Parser(prog="lrm evaluate")
    parser.add_argument("--render.resolution", dest="side", type=int, default=320)
    add_old_option(parser, "--render-size", "--render.resolution")
    assert parser.parse_args([]).side == 320
    assert parser.parse_args(["--render-size", "24"]).side == 24
    assert "use --render.resolution" in capsys.readouterr().err
    assert "render-size" not in parser.format_help()


@pytest.mark.parametrize("command", ["evaluate", "doctor"])
def test_commands_accept_the_old_names_of_the_weights_of_lpips(command):
    parser = Parser(prog=f"lrm {command}")
    next(entry for entry in COMMANDS if entry.name == command).load().options(parser)
    words = ["--out", "o"] if command == "evaluate" else []
    words += ["--lpips-vgg", "v", "--lpips-linear", "l"]
    arguments = parser.parse_args(words)
    assert (arguments.lpips_vgg, arguments.lpips_linear) == ("v", "l")


def test_a_switch_of_a_group_needs_no_value():
    config = read("--render.denoise", "false", "--filters.licence.enabled", "--render.samples", "3")
    assert config.filters.licence.enabled is True
    assert (config.render.denoise, config.render.samples) == (False, 3)
    assert read("--render.denoise", "--surface.points", "7").surface.points == 7


def test_every_switch_of_a_group_can_be_switched_off():
    config = read("--no-render.denoise", "--no-filters.caption", "--no-filters.textured.enabled")
    assert config.render.denoise is False
    assert (config.filters.caption.enabled, config.filters.textured.enabled) == (False, False)


@pytest.mark.parametrize("words", [["--no-geometry", "true"], ["--no-geometry=false"]])
def test_a_switch_that_is_off_takes_no_value(words, capsys):
    with pytest.raises(SystemExit) as exited:
        read(*words)
    assert exited.value.code == 2
    assert "--no-geometry takes no value" in capsys.readouterr().err


class Shown(Config):
    name: Annotated[str, Choices(["b", "a"])] = "b"
    """Which one. It is one of them."""
    kind: Literal["x", "y"] = "y"
    """Another one."""
    memory_bytes: int = 2**29
    """Most memory."""
    cache_bytes: int = 10**11
    """Largest cache."""
    wait_seconds: PositiveFloat | None = 30.0
    """Longest wait."""
    needed: str
    """What is needed."""
    fast: bool = False
    """Be fast."""
    inner: Inner = Inner()


def help_of(capsys, *words: str) -> str:
    parser = Parser(prog="lrm test")
    add_config_options(parser, Shown)
    parser.set_common(["--needed", "--name", "--fast"])
    with pytest.raises(SystemExit):
        parser.parse_args(words)
    return " ".join(capsys.readouterr().out.split())


def test_help_names_choices_units_and_defaults(capsys):
    text = help_of(capsys, "--help-all")
    assert "usage: lrm test --needed NEEDED [OPTIONS]" in text
    for line in (
        "--name NAME Which one. It is one of them. [b, a; default: b]",
        "--kind KIND Another one. [x, y; default: y]",
        "--memory-bytes N Most memory. [default: 536870912 (512 MiB)]",
        "--cache-bytes N Largest cache. [default: 100000000000 (100 GB)]",
        "--wait-seconds NUMBER Longest wait. [default: 30 s]",
        "--needed NEEDED What is needed. [required]",
        "--[no-]fast Be fast. [default: false]",
        "inner: Settings of the inner part. --inner.size N Its size. [default: 3]",
    ):
        assert line in text


def test_short_help_has_the_common_options_and_first_sentences(capsys):
    text = help_of(capsys, "--help")
    assert "--name NAME Which one. [b, a; default: b]" in text
    assert "--kind" not in text
    assert text.endswith("`lrm test --help-all` shows the other 6 options by group.")


def test_a_common_option_that_does_not_exist_is_an_error():
    parser = Parser(prog="lrm test")
    with pytest.raises(ValueError, match="lrm test: no such options: --gone"):
        parser.set_common(["--gone"])


def test_compact_accepts_the_old_name_of_the_garbage_ratio(capsys):
    parser = Parser(prog="lrm compact")
    next(entry for entry in COMMANDS if entry.name == "compact").load().options(parser)
    assert parser.parse_args(["--root", "r", "--dead-share", "0.5"]).garbage_ratio == 0.5
    assert "--dead-share is deprecated; use --garbage-ratio" in capsys.readouterr().err


def test_a_switch_without_a_default_of_its_own():
    assert read().keep_raw is None
    assert read("--keep-raw").keep_raw is True
    assert read("--keep-raw", "null").keep_raw is None


def test_a_switch_rejects_other_values(capsys):
    with pytest.raises(BadInput, match="geometry: must be true or false"):
        read("--geometry", "maybe")


@pytest.mark.parametrize("option", ["--rig", "--surface.points", "--surface.seed"])
def test_other_options_need_a_value(option, capsys):
    with pytest.raises(SystemExit) as exited:
        read(option)
    assert exited.value.code == 2
    assert "expected one argument" in capsys.readouterr().err


def test_without_a_file_settings_are_named_as_options():
    with pytest.raises(BadInput, match=r"^--surface\.points: must be a whole number, got 'many'$"):
        read("--surface.points", "many")


def test_a_word_too_many_is_named(capsys):
    with pytest.raises(SystemExit):
        read("extra")
    assert capsys.readouterr().err.endswith("error: unexpected argument extra\n")


def command_parser(name: str) -> Parser:
    parser = Parser(prog=f"lrm {name}")
    next(entry for entry in COMMANDS if entry.name == name).load().options(parser)
    return parser


def value_options(parser: Parser) -> list[argparse.Action]:
    """Return the options of a command that keep one value."""
    parser.populate()
    kinds = (argparse._StoreAction,)
    return [a for a in parser._actions if isinstance(a, kinds) and a.option_strings]


def two_values(action: argparse.Action) -> list[str]:
    """Return two words that an option accepts."""
    if action.choices:
        return list(action.choices)[:2]
    accepts = action.type or str
    for words in (["1", "01"], ["[a]", "[b]"]):
        with contextlib.suppress(argparse.ArgumentTypeError):
            accepts(words[0])
            return words
    raise AssertionError(f"no words for {action.option_strings[0]}")


@pytest.mark.parametrize("name", [entry.name for entry in COMMANDS])
def test_no_option_of_a_command_ignores_its_first_value(name, capsys):
    parser = command_parser(name)
    for action in value_options(parser):
        option = action.option_strings[0]
        words = [f"{option}={value}" for value in two_values(action)]
        with pytest.raises(SystemExit) as exited:
            parser.parse_args(words)
        assert exited.value.code == 2
        assert f"{option} is given twice" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["build", "plan", "compact"])
def test_a_second_accepted_loss_is_refused(name, capsys):
    with pytest.raises(SystemExit):
        command_parser(name).parse_args("--root r --accept-loss 0.1 --accept-loss 0.9".split())
    assert "--accept-loss is given twice: 0.1 and 0.9" in capsys.readouterr().err


def test_an_option_may_be_repeated_with_the_same_value():
    words = ["--root", "r", "--garbage-ratio", "0.5"]
    assert command_parser("compact").parse_args([*words, *words]).garbage_ratio == 0.5


def test_a_number_that_differs_from_itself_may_be_given():
    words = ["--root", "r", "--garbage-ratio", "nan"]
    assert math.isnan(command_parser("compact").parse_args(words).garbage_ratio)


def test_the_old_and_the_new_name_of_an_option_count_as_the_same(capsys):
    words = ["--root", "r", "--garbage-ratio", "0.5", "--dead-share", "0.4"]
    with pytest.raises(SystemExit):
        command_parser("compact").parse_args(words)
    assert "is given twice: 0.5 and 0.4" in capsys.readouterr().err


def test_the_help_names_numbers_and_hides_empty_lists():
    for command, option, expected in (
        ("compact", "--release", ("text", "")),
        ("compact", "--accept-loss", ("number", "")),
        ("build", "--metrics-port", ("whole number", "")),
        ("status", "--watch", ("number", "")),
    ):
        parser = command_parser(command)
        assert values_and_default(parser._option_string_actions[option]) == expected
    for command in ("export", "evaluate"):
        assert command_parser(command)._option_string_actions["--snapshot"].metavar == "SNAPSHOT"


def test_options_that_collect_keep_all_values():
    released = command_parser("compact").parse_args("--root r --release a --release b".split())
    assert released.release == ["a", "b"]
    deleted = command_parser("snapshot").parse_args("--root r --delete a b --delete c".split())
    assert deleted.delete == ["a", "b", "c"]


def test_the_last_value_of_a_setting_counts(capsys):
    """Scripts append options to override their own."""
    config = read("--rig", "orbit21", "--surface.points", "5", "--rig", "lrm32")
    assert (config.rig, config.surface.points) == ("lrm32", 5)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["source", "root", "captions"])
def test_a_second_input_or_output_is_refused(name: str, capsys):
    option = f"--{name}"
    with pytest.raises(SystemExit) as exited:
        read(option, "one", option, "two")
    assert exited.value.code == 2
    first = {"source": "s", "root": "r", "captions": "one"}[name]
    assert f"{option} is given twice: {first} and " in capsys.readouterr().err


def test_two_lists_of_a_setting_are_refused(capsys):
    option = "--filters.licence.allowed"
    with pytest.raises(SystemExit) as exited:
        read(option, "[by]", option, "[cc0]")
    assert exited.value.code == 2
    assert f"{option} is given twice: give one list" in capsys.readouterr().err
    assert read(option, "[by]", option, "[by]").filters.licence.allowed == ("by",)


def test_mappings_of_a_setting_are_merged():
    option = "--execution.render-resources"
    assert read(option, "{a: 1}", option, "{b: 2}").execution.render_resources == {"a": 1, "b": 2}
