"""The forms of the records of builds: a file that has another one is damaged."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Required

import pydantic
from typing_extensions import TypedDict

__all__ = ["check_build", "check_record"]


def _check_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


_Time = Annotated[str, pydantic.AfterValidator(_check_time)]


class _Hours(TypedDict, total=False):
    """The estimate in the record of a build."""

    core_hours: float
    gpu_hours: float


class _Estimate(_Hours, total=False):
    """The estimate in build.json."""

    since: Required[_Time]
    stages: Required[dict[str, dict[str, float]]]


class _Begun(TypedDict):
    """Repeated work of a stage that an interrupted build had begun."""

    settings: str
    objects: int


class _Rig(TypedDict, total=False):
    """What build.json remembers of a rig."""

    settings: Required[dict[str, Any]]
    versions: dict[str, str] | None
    accepted: dict[str, _Begun]


class _Build(TypedDict, total=False):
    """The content of build.json."""

    config: dict[str, Any]
    rigs: dict[str, _Rig]
    estimate: _Estimate
    ended: _Time


class _Change(TypedDict):
    name: str
    before: Any
    after: Any


class _Accepted(TypedDict, total=False):
    loss: float | None
    changes: list[str] | None


class _Record(TypedDict, total=False):
    """The content of a file in builds/."""

    started: Required[_Time]
    ended: _Time | None
    run: str
    command: str
    user: str
    host: str
    pid: int
    rig: str | None
    limit: int | None
    outcome: str
    error: str | None
    objects: dict[str, int] | None
    reserves: dict[str, dict[str, float]]
    estimate: _Hours
    changes: list[_Change]
    settings: dict[str, Any] | None
    versions: dict[str, str] | None
    listing: dict[str, int] | None
    failures: dict[str, int] | None
    accepted: _Accepted | None


def check_build(build: Any) -> None:
    """Raise ValueError, with a message of one line, if this is not the content of build.json."""
    _check(_Build, build)


def check_record(record: Any) -> None:
    """Raise ValueError, with a message of one line, if this is not the record of a build."""
    _check(_Record, record)


def _check(form: type, values: Any) -> None:
    try:
        # Values that only a later version stores are allowed.
        _adapter(form).validate_python(values, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(": ".join(filter(None, (where, first["msg"])))) from None


@cache
def _adapter(form: type) -> pydantic.TypeAdapter[Mapping[str, Any]]:
    return pydantic.TypeAdapter(form)
