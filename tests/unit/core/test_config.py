"""Renamed settings: the old name still works in files and on the command line."""

from typing import ClassVar

import pytest

from core.config import Config, Renamed
from core.errors import BadInput
from core.options import Parser, add_config_options, load_config
from pipelines.building.build_config import BuildConfig


class Inner(Config):
    size: int = 10
    fast: bool = False


class Outer(Config):
    renamed: ClassVar = {
        "length": Renamed("inner.size"),
        "old.quick": Renamed("inner.fast"),
        "old.most": Renamed("inner.size", dropped_at=7, combine=min),
    }
    inner: Inner = Inner()
    old: Inner = Inner()


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({}, 10),
        ({"length": 3}, 3),
        ({"length": 3, "inner": {"size": 3}}, 3),
        ({"old": {"most": 7}}, 10),
        ({"old": {"most": 7}, "inner": {"size": 5}}, 5),
        ({"old": {"most": 4}}, 4),
        ({"old": {"most": 400}}, 10),
        ({"old": {"most": 400}, "inner": {"size": 50}}, 50),
    ],
)
def test_an_old_name_in_a_file_still_works(values, size):
    config = Outer.load(values)
    assert config.inner.size == size
    assert Outer.load(config.dump()) == config
    assert "length" not in config.dump()


def test_other_settings_beside_an_old_name_keep_their_values():
    config = Outer.load({"old": {"quick": True, "size": 3}})
    assert (config.inner.fast, config.old.size) == (True, 3)


def test_an_invalid_value_under_an_old_name_is_reported():
    with pytest.raises(BadInput, match=r"inner\.size: .*'many'"):
        Outer.load({"old": {"most": "many"}})
    with pytest.raises(BadInput, match=r"old: "):
        Outer.load({"old": 5})


def test_two_values_of_a_setting_in_a_file_are_an_error():
    with pytest.raises(BadInput, match=r"file: length and inner\.size are the same setting"):
        Outer.load({"length": 3, "inner": {"size": 5}}, where="file")


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("--inner.size 5", 5),
        ("--length 5", 5),
        ("--length 4 --inner.size 5", 5),
        ("--inner.size 4 --length 5", 5),
        ("--old.most 5", 5),
    ],
)
def test_an_option_overrides_the_file_under_either_name(line, size, tmp_path):
    file = tmp_path / "settings.yaml"
    parser = Parser(prog="lrm test")
    add_config_options(parser, Outer)
    for text in ("length: 3", "inner: {size: 3}"):
        file.write_text(text)
        arguments = parser.parse_args(["--config", str(file), *line.split()])
        assert load_config(Outer, arguments).inner.size == size


def test_an_old_option_warns_in_one_line(capsys):
    parser = Parser(prog="lrm test")
    add_config_options(parser, Outer)
    config = load_config(Outer, parser.parse_args(["--length", "3", "--old.quick"]))
    assert config.inner == Inner(size=3, fast=True)
    warnings = capsys.readouterr().err.splitlines()
    assert warnings == [
        "lrm test: warning: --length is deprecated; use --inner.size",
        "lrm test: warning: --old.quick is deprecated; use --inner.fast",
    ]
    assert "--length" not in parser.format_help()


def test_limits_of_the_blender_child_are_those_of_the_inspection():
    """Older datasets store these limits as settings of the Blender child."""
    old = {"max_nodes": 20_000, "max_triangles": 7, "max_texture_pixels": 2**40, "threads": 2}
    config = BuildConfig.load({"source": "s", "root": "r", "blender": old})
    assert (config.inspect.max_nodes, config.inspect.max_triangles) == (20_000, 7)
    assert (
        config.inspect.max_total_pixels
        == BuildConfig(source="s", root="r").inspect.max_total_pixels
    )
    assert config.blender.threads == 2
    assert "max_nodes" not in config.dump()["blender"]


def test_a_stored_configuration_with_old_names_is_the_same_configuration():
    new = BuildConfig(source="s", root="r")
    old = new.dump()
    filters, limits = old["filters"], old["blender"]
    filters["several"] = {
        "enabled": True,
        "drop_unsure": False,
        "min_share": 0.1,
        "min_share_close": 0.25,
        "one_share": 0.95,
        "ground_groups": 3,
        "ground_height": 0.1,
    }
    del filters["multi_object"]
    limits["warm_seconds"] = limits.pop("kernel_compile_seconds")
    assert BuildConfig.load(old) == new


def test_a_stored_configuration_with_the_old_names_of_fetch_loads_and_compares_equal():
    old = {"parts": None, "wait_seconds": 3600.0}
    plain = BuildConfig(source="s", root="r")
    assert BuildConfig.load({"source": "s", "root": "r", "fetch": old}) == plain
    changed = BuildConfig.load({"source": "s", "root": "r", "fetch": {"parts": "p"}})
    assert changed.fetch.partial_folder == "p"


def test_known_keys_are_listed_once():
    with pytest.raises(BadInput) as caught:
        Outer.load({"apple": 1, "pear": 2, "inner": {"size": "many"}})
    message = str(caught.value)
    assert "inner.size: must be a whole number, got 'many'" in message
    assert "unknown key 'apple'; unknown key 'pear'; known keys: " in message
    assert message.count("known keys") == 1
