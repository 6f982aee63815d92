"""The settings of a build: old names still load, and the help lists every rig."""

from core.options import Parser, add_config_options
from pipelines.building.build_config import BuildConfig
from render.rigs import RIGS


def config_with(**execution: int) -> BuildConfig:
    return BuildConfig.load({"source": "s", "root": "r", "execution": execution})


def test_a_stored_configuration_with_the_old_name_is_equal() -> None:
    assert config_with(ask_for_renders=7) == config_with(autoscaler_renders=7)
    assert config_with(ask_for_renders=0) == config_with()
    assert "ask_for_renders" not in config_with(ask_for_renders=7).dump()["execution"]


def test_the_help_of_the_rig_names_every_rig() -> None:
    parser = Parser(prog="lrm build")
    add_config_options(parser, BuildConfig)
    text = " ".join(parser.format_help(everything=True).split())
    assert f"[{', '.join(RIGS)}; default: lrm32]" in text
