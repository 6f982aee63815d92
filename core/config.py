"""Strict configuration: unknown keys fail with a suggestion, and every value has one digest."""

import contextlib
import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

import pydantic

from core.errors import BadInput

__all__ = [
    "ABSENT",
    "Config",
    "Fraction",
    "NonNegativeFloat",
    "NonNegativeInt",
    "NumBytes",
    "PositiveFloat",
    "PositiveInt",
    "Renamed",
    "Seconds",
    "Side",
    "canonical_json",
    "digest",
    "merge",
    "nested",
    "nested_renames",
    "without",
]

Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]
"""A number from 0 to 1: a share of a whole, or a probability."""

_MAX_INT, _MAX_FLOAT = 2**31 - 1, 1e9
"""Bounds of numbers without a lower one: 32 bits hold such an integer, and single precision holds
such a number and its square."""
PositiveInt = Annotated[int, pydantic.Field(gt=0, le=_MAX_INT)]
NonNegativeInt = Annotated[int, pydantic.Field(ge=0, le=_MAX_INT)]
PositiveFloat = Annotated[float, pydantic.Field(gt=0, le=_MAX_FLOAT)]
NonNegativeFloat = Annotated[float, pydantic.Field(ge=0, le=_MAX_FLOAT)]
Seconds = Annotated[float, pydantic.Field(gt=0, le=30 * 86400)]
"""A time limit or a wait; 30 days at most."""
NumBytes = Annotated[int, pydantic.Field(gt=0, le=2**50)]
"""A number of bytes; 1 PiB at most."""
Side = Annotated[int, pydantic.Field(gt=0, le=2**14)]
"""A side of a picture in pixels. One of the largest size takes 3 GB while it is processed."""

ABSENT = object()
"""The value of a setting that is not there; None is a value."""


@dataclass(frozen=True)
class Renamed:
    """The new path of a setting whose old name is still accepted."""

    path: str
    """Its path today, such as `inspect.max_nodes`."""
    dropped_at: Any = ABSENT
    """A value of the old name that is ignored: the default that stored configurations hold."""
    combine: Callable[[Any, Any], Any] | None = None
    """Merge the values of the old and the new name into one; by default two values are an error."""
    old_type: Any = None
    """Type of the old setting; by default that of the new one."""
    deprecated: bool = True
    """Whether the command line warns about the old name; False for a second accepted spelling."""


def nested_renames(section: str, renamed: Mapping[str, Renamed]) -> dict[str, Renamed]:
    """Return the renamed settings of a nested configuration with the paths of the outer one."""
    return {
        f"{section}.{old}": replace(new, path=f"{section}.{new.path}")
        for old, new in renamed.items()
    }


class Config(pydantic.BaseModel):
    """Base of every configuration: frozen, strict about keys, round-trips through YAML.

    `load(dump(config)) == config` holds for every configuration.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )
    renamed: ClassVar[Mapping[str, Renamed]] = {}
    """Old paths of settings, which `load` and the command line accept: {"old.path": Renamed(...)}.
    Only those of the outermost configuration are used."""

    @classmethod
    def load(
        cls,
        values: Mapping[str, Any],
        where: str = "configuration",
        name_of: Callable[[str], str] = str,
    ) -> Self:
        """Return the configuration of plain values.

        In an error, `where` names their origin (if it is not empty), and `name_of` turns the path
        of a setting into the name under which it was given.

        Raises BadInput with one line that names every wrong key or value.
        """
        try:
            return cls.model_validate(cls.with_new_names(values, where))
        except pydantic.ValidationError as error:
            problems = _problems(cls, error.errors(), name_of)
            raise BadInput(f"{where}: {problems}" if where else problems) from None

    @classmethod
    def with_new_names(
        cls, values: Mapping[str, Any], where: str = "configuration"
    ) -> Mapping[str, Any]:
        """Return plain values with those under old names moved to the new ones.

        Raises BadInput if the old and the new name of a setting have different values.
        """
        for path, new in cls.renamed.items():
            values, old = without(values, path.split("."))
            if old is ABSENT or old == new.dropped_at:
                continue
            _, given = without(values, new.path.split("."))
            value = old
            if new.combine is not None:
                # A value of the wrong type is named by the validation.
                with contextlib.suppress(TypeError):
                    value = new.combine(old, _default(cls, new.path) if given is ABSENT else given)
            elif given not in (ABSENT, old):
                raise BadInput(
                    f"{where}: {path} and {new.path} are the same setting and have different "
                    f"values: remove {path}"
                )
            values = merge(values, nested(new.path, value))
        for path in cls.renamed:
            values = _without_empty(values, path.split(".")[:-1])
        return values

    def dump(self) -> dict[str, Any]:
        """Return plain values (str, int, float, bool, None, list, dict) that `load` accepts."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """Return the first 16 hexadecimal digits of the SHA-256 of the JSON of `dump()`."""
        return digest(self.dump())


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over` on top, mapping by mapping.

    Raises BadInput if `over` has settings below a key that is not a mapping in `base`.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and below is not None:
            if not isinstance(below, Mapping):
                raise BadInput(f"{key} must be a mapping of settings, got {below!r}")
            value = merge(below, value)
        merged[key] = value
    return merged


def nested(path: str, value: Any) -> dict[str, Any]:
    """Return the mapping that has one value, at a dotted path."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def without(values: Any, path: Sequence[str]) -> tuple[Any, Any]:
    """Return the values without the one at a path, and that value or `ABSENT`."""
    if not isinstance(values, Mapping) or path[0] not in values:
        return values, ABSENT
    rest = {name: value for name, value in values.items() if name != path[0]}
    if len(path) == 1:
        return rest, values[path[0]]
    below, value = without(values[path[0]], path[1:])
    if value is ABSENT:
        return values, value
    # A section whose last setting has moved may not exist any more.
    return rest | {path[0]: below} if below else rest, value


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def _without_empty(values: Mapping[str, Any], section: list[str]) -> Mapping[str, Any]:
    """Return the values without a section that is empty, because its settings have moved."""
    if not section:
        return values
    rest, content = without(values, section)
    return rest if content == {} else values


def _default(cls: type[pydantic.BaseModel], path: str) -> Any:
    section, *names = path.split(".")
    value = cls.model_fields[section].get_default(call_default_factory=True)
    for name in names:
        value = getattr(value, name)
    return value


_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list in brackets",
    "list_type": "a list in brackets",
    "dict_type": "a mapping of settings",
    "model_type": "a mapping of settings",
}
"""What a value must be, by the type of pydantic's error; other errors keep their message."""


def _problems(
    cls: type[pydantic.BaseModel], issues: Sequence[Any], name_of: Callable[[str], str]
) -> str:
    """Return all wrong keys and values in one line, in which known keys are listed once."""
    problems, known_keys = [], {}
    for issue in issues:
        *section, last = map(str, issue["loc"] or ("",))
        path = ".".join(map(str, issue["loc"]))
        if issue["type"] != "extra_forbidden":
            problems.append(_describe(issue, name_of(path) if path else "value"))
            continue
        fields = _fields_at(cls, issue["loc"][:-1])
        close = difflib.get_close_matches(last, fields, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        problems.append(f"unknown key {path!r}{hint}")
        if not close:
            of_section = f" of {'.'.join(section)}" if section else ""
            known_keys[of_section] = f"known keys{of_section}: {', '.join(sorted(fields))}"
    return "; ".join([*problems, *known_keys.values()])


def _describe(issue: Any, name: str) -> str:
    if issue["type"] == "missing":
        return f"{name} is required"
    if issue["type"] == "value_error":
        # Messages of our own validators contain the value.
        return f"{name}: {issue['ctx']['error']}"
    expected = _EXPECTED.get(issue["type"])
    problem = f"must be {expected}" if expected else _shorten_message(issue["msg"])
    return f"{name}: {problem}, got {issue['input']!r}"


def _shorten_message(message: str) -> str:
    text = message.replace("Input should be ", "must be ")
    return text[:1].lower() + text[1:]


def _fields_at(cls: type[pydantic.BaseModel], path: tuple[Any, ...]) -> list[str]:
    for part in path:
        annotation = cls.model_fields[part].annotation if part in cls.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)):
            return []
        cls = annotation
    return list(cls.model_fields)
