"""What a field of a configuration says of its option: choices, values, unit, default."""

import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pydantic

__all__ = [
    "Choices",
    "choices_of",
    "default_text",
    "is_switch",
    "leaves",
    "members",
    "placeholder",
    "values_text",
]

_UNITS = {"seconds": "s", "days": "days", "hours": "h", "pixels": "pixels", "degrees": "degrees"}
"""Units by the last word of an option's name."""
_BYTES = (
    *((f"{prefix}iB", 2**power) for prefix, power in zip("TGMK", (40, 30, 20, 10), strict=True)),
    *((f"{prefix}B", 10**power) for prefix, power in zip("TGMk", (12, 9, 6, 3), strict=True)),
)
"""Limits of memory and files are powers of two, those of caches powers of ten."""
_KINDS = {int: "whole number", float: "number", str: "text", dict: "mapping", bool: "true, false"}
_TECHNICAL_BOUND = 10**9
"""Bounds from here on, such as that of 32 bits, are left out: they limit no use."""
_LISTS = (list, tuple, frozenset, set)
_PLACEHOLDERS: Mapping[Any, str] = {int: "N", float: "NUMBER"} | dict.fromkeys(_LISTS, "LIST")


class Choices:
    """The values of a text setting, for its help and completion: `Annotated[str, Choices(RIGS)]`.

    It does not validate: the registry that the names come from raises the better error.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Keep the names, in their order."""
        self.names = tuple(names)


def leaves(
    config: type[pydantic.BaseModel], prefix: str = ""
) -> Iterator[tuple[str, pydantic.fields.FieldInfo]]:
    """Yield the dotted path and the field of every setting, nested ones included."""
    for name, field in config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def is_switch(annotation: Any) -> bool:
    """Return whether a field is true or false, with or without a third value for "not set"."""
    return annotation is bool or bool in typing.get_args(annotation)


def choices_of(annotation: Any, metadata: Sequence[Any] = ()) -> list[str]:
    """Return the words that a field takes; none if it takes anything else, too."""
    if is_switch(annotation):
        return ["true", "false"]
    names = [name for item in metadata if isinstance(item, Choices) for name in item.names]
    literals = [kind for kind in members(annotation) if typing.get_origin(kind) is typing.Literal]
    return names + [str(word) for kind in literals for word in typing.get_args(kind)]


def values_text(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return what a field takes, for people: `whole number > 0`, `cpu, gpu`, `text`."""
    choices = choices_of(annotation, metadata)
    if choices:
        return ", ".join(choices)
    parts = [_kind_text(kind, metadata) for kind in members(annotation)]
    return " or ".join(dict.fromkeys(part for part in parts if part))


def placeholder(annotation: Any) -> str:
    """Return what stands for a number or a list in the help; empty for other types and unions."""
    origins = {_origin(kind) for kind in members(annotation)} - {type(None)}
    return _PLACEHOLDERS.get(origins.pop(), "") if len(origins) == 1 else ""


def default_text(path: str, value: Any) -> str:
    """Return a default as a person types it, with its unit; empty if there is nothing to say."""
    if value is None or (isinstance(value, Mapping) and not value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    if not isinstance(value, int | float):
        return str(value)
    number = f"{value:.10g}" if isinstance(value, float) else str(value)
    unit = path.rpartition(".")[2].replace("-", "_").rpartition("_")[2]
    if unit == "bytes":
        return number + _bytes_text(int(value))
    return f"{number} {_UNITS[unit]}" if unit in _UNITS else number


def _bytes_text(count: int) -> str:
    shortest = min(
        ((count // size, unit) for unit, size in _BYTES if count and count % size == 0),
        default=None,
    )
    return " bytes" if shortest is None else f" ({shortest[0]} {shortest[1]})"


def members(annotation: Any) -> Sequence[Any]:
    """Return the members of a union, or the one type that there is."""
    is_union = isinstance(annotation, types.UnionType) or (
        typing.get_origin(annotation) is typing.Union
    )
    return typing.get_args(annotation) if is_union else [annotation]


def _kind_text(annotation: Any, metadata: Sequence[Any]) -> str:
    if annotation is type(None):
        return ""
    if typing.get_origin(annotation) is typing.Annotated:
        _, *metadata = typing.get_args(annotation)
    origin = _origin(annotation)
    kind = "list" if origin in _LISTS else _KINDS.get(origin, "text")
    return kind + (_bounds_text(metadata) if origin in (int, float) else "")


def _origin(annotation: Any) -> Any:
    """Return the plain type of an annotation, such as `list` of `list[int]`."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return typing.get_origin(annotation) or annotation


def _bounds_text(metadata: Sequence[Any]) -> str:
    flat = [
        part
        for item in metadata
        for part in (item.metadata if isinstance(item, pydantic.fields.FieldInfo) else [item])
    ]
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        f"{sign} {getattr(part, name):.10g}"
        for name, sign in signs.items()
        for part in flat
        if getattr(part, name, None) is not None
        and not (name == "le" and part.le >= _TECHNICAL_BOUND)
    ]
    return f" {' and '.join(bounds)}" if bounds else ""
