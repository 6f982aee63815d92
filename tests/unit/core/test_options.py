"""Options made from configurations: every kind of field, as a person writes it."""

import pytest

from core.errors import BadInput
from core.options import Parser, add_config_options, add_old_option, load_config
from pipelines.building.build_config import BuildConfig
from pipelines.cli.registry import COMMANDS


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
    ],
)
def test_a_switch_may_stand_alone(words, expected):
    assert read(*words).geometry is expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--blender.max-nodes", "max_nodes"),
        ("--blender.max-triangles", "max_triangles"),
        ("--blender.max-texture-pixels", "max_total_pixels"),
    ],
)
def test_old_names_of_limits_still_work_and_say_so(old, new, capsys):
    assert getattr(read(old, "7").inspect, new) == 7
    option = f"--inspect.{new.replace('_', '-')}"
    assert capsys.readouterr().err == f"lrm build: warning: {old} is deprecated; use {option}\n"


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
    found = parser.parse_args(words)
    assert (found.lpips_vgg, found.lpips_linear) == ("v", "l")


def test_a_switch_below_a_group_is_a_switch():
    config = read("--render.denoise", "false", "--filters.licence.enabled", "--render.samples", "3")
    assert config.filters.licence.enabled is True
    assert (config.render.denoise, config.render.samples) == (False, 3)
    assert read("--render.denoise", "--surface.points", "7").surface.points == 7


def test_a_switch_without_a_default_of_its_own():
    assert read().keep_raw is None
    assert read("--keep-raw").keep_raw is True
    assert read("--keep-raw", "null").keep_raw is None


def test_a_switch_takes_no_other_word(capsys):
    with pytest.raises(BadInput, match="geometry: input should be a valid boolean"):
        read("--geometry", "maybe")


@pytest.mark.parametrize("option", ["--rig", "--surface.points", "--surface.seed"])
def test_anything_else_needs_a_value(option, capsys):
    with pytest.raises(SystemExit) as left:
        read(option)
    assert left.value.code == 2
    assert "expected one argument" in capsys.readouterr().err
