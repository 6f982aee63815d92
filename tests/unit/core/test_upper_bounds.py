"""Every number of a setting has an upper bound, and none may be infinite or not a number."""

import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from core.config import Config
from core.errors import BadInput
from core.options import Parser, add_config_options, load_config
from core.options.bounds import at_most
from core.options.field_values import leaves, members
from pipelines.building.build_config import BuildConfig
from pipelines.cli.registry import COMMANDS
from train.recipes.registry import RECIPES

CONFIGS: dict[str, type[Config]] = {
    "build": BuildConfig,
    **{name: recipe.config for name, recipe in RECIPES.items()},
}
NEEDED = ("source", "root", "snapshot", "out")


def numbers(annotation: Any, metadata: Any) -> Iterator[tuple[type, list[Any]]]:
    """Yield type and constraints of each number that a field holds."""
    for kind in members(annotation):
        found = list(metadata)
        if typing.get_origin(kind) is typing.Annotated:
            kind, *more = typing.get_args(kind)
            found += more
        if kind in (int, float):
            yield kind, [part for item in found for part in getattr(item, "metadata", [item])]
        elif typing.get_origin(kind) in (list, tuple, dict):
            for inner in typing.get_args(kind):
                yield from numbers(inner, ())


SETTINGS = [
    (name, path, kind, constraints)
    for name, config in CONFIGS.items()
    for path, field in leaves(config)
    for kind, constraints in numbers(field.annotation, field.metadata)
]


def bound(constraints: list[Any]) -> Any:
    limits = [getattr(item, name, None) for item in constraints for name in ("le", "lt")]
    return next((limit for limit in limits if limit is not None), None)


def error_of(name: str, parser: Parser, path: str, value: str) -> str:
    """Return the message about a value of a setting."""
    config = CONFIGS[name]
    needed = [word for key in NEEDED if key in config.model_fields for word in (f"--{key}", "x")]
    is_mapping = typing.get_origin(dict(leaves(config))[path].annotation) is dict
    option = f"--{path.replace('_', '-')}"
    given = [*needed, option, f"{{x: {value}}}" if is_mapping else value]
    with pytest.raises(BadInput) as caught:
        load_config(config, parser.parse_args(given))
    return str(caught.value)


def test_there_are_settings() -> None:
    assert len(SETTINGS) > 100
    assert {"render.resolution", "batch_size"} <= {path for _, path, *_ in SETTINGS}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_larger_number_is_refused_with_option_and_bound(name: str) -> None:
    parser = Parser(prog="lrm")
    add_config_options(parser, CONFIGS[name])
    for config, path, kind, constraints in SETTINGS:
        if config != name:
            continue
        limit = bound(constraints)
        assert limit is not None, f"{name}: {path} has no upper bound"
        option = re.escape(path.replace("_", "-"))
        for value, problem in (
            (str(kind(limit * 2)), r"less than (or equal to )?[\d.e+]+"),
            *((value, "a finite number") for value in (".inf", ".nan") if kind is float),
        ):
            message = error_of(name, parser, path, value)
            assert re.match(rf"--{option}\S*: must be {problem}", message), message


def test_a_range_of_workers_is_bounded() -> None:
    parser = Parser(prog="lrm")
    add_config_options(parser, CONFIGS["nerf"])
    message = error_of("nerf", parser, "num_workers", "1:999999999999")
    assert message.startswith("--num-workers: must be less than or equal to 100000")


def test_every_number_of_a_plain_option_is_bounded() -> None:
    for entry in COMMANDS:
        parser = Parser(prog="lrm")
        entry.load().options(parser)
        for action in parser._actions:
            # The command itself checks that this one is from 0 to 1.
            if action.dest != "garbage_ratio":
                assert action.type not in (int, float), f"lrm {entry.name}: {action.dest}"


@pytest.mark.parametrize("text", ["11", "-11", "nan", "inf", "1e400"])
def test_a_plain_option_names_its_bound(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="lrm")
    parser.add_argument("--size", type=at_most(float, 10))
    with pytest.raises(SystemExit):
        parser.parse_args([f"--size={text}"])
    assert capsys.readouterr().err == (
        f"lrm: error: argument --size: must be at most 10, got {text}\n"
    )
    assert parser.parse_args(["--size", "10"]).size == 10
