"""Options made from configurations: every kind of field, as a person writes it."""

import pytest

from core.errors import BadInput
from core.options import Parser, add_config_options, load_config
from pipelines.building.build_config import BuildConfig


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
