"""YAML in files and options: read in time and memory in proportion to the text."""

from typing import Any

import yaml

from core.errors import BadInput, first_line
from core.paths.regular_file import open_regular

__all__ = ["parse_yaml", "read_yaml"]

_MAX_CHARACTERS = 1 << 20
"""Characters of a file; PyYAML needs seconds for them."""


class _Loader(yaml.SafeLoader):
    """Refuses aliases, with which a short text can stand for any number of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*NAME) are not supported: repeat the value")
        return super().compose_node(parent, index)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text. Raises yaml.YAMLError."""
    try:
        return _Loader(text).get_single_data()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # PyYAML lets them through, for example for the date 2026-13-01.
        raise yaml.YAMLError(first_line(error)) from None


def read_yaml(path: str) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises BadInput if it is missing or holds no mapping."""
    try:
        with open_regular(path, encoding="utf-8") as file:
            text = file.read(_MAX_CHARACTERS + 1)
        if len(text) > _MAX_CHARACTERS:
            raise BadInput(f"{path}: has more than {_MAX_CHARACTERS} characters of configuration")
        values = parse_yaml(text)
    except OSError as error:
        raise BadInput(f"{path}: cannot read the configuration: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise BadInput(f"{path}: is not valid YAML: {problem}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise BadInput(f"{path}: must hold a mapping of settings, not a {type(values).__name__}")
    return values
