"""What is known of an object before its file is opened: identity, licence, tags, caption."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from core.errors import BadInput

__all__ = ["ObjectRecord", "sample_key", "split_asset_id"]

_ASSET_ID = re.compile(r"^([a-z0-9_]+):(.+)$", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ObjectRecord:
    """One object as its source lists it."""

    asset_id: str
    """`source:native_id`, for example `objaverse:8476c4170df24cf5bbe6967222d1a42d`."""
    path: str
    """Where its file lies below the source's root."""
    name: str
    licence: str | None
    author: str | None
    tags: tuple[str, ...]
    categories: tuple[str, ...]
    """LVIS categories; empty for an object outside LVIS."""
    caption: str | None
    """The Cap3D caption, without surrounding space; None where there is none."""
    age_restricted: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = dataclasses.asdict(self)
        return values | {"tags": list(self.tags), "categories": list(self.categories)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The record that `to_dict` wrote."""
        lists = {name: tuple(values[name]) for name in ("tags", "categories")}
        return cls(**values | lists)


def split_asset_id(asset_id: str) -> tuple[str, str]:
    """`objaverse:abc` -> (`objaverse`, `abc`). Raises BadInput if it has another form."""
    match = _ASSET_ID.match(asset_id)
    if match is None:
        raise BadInput(f"{asset_id!r} is no asset id: it should look like objaverse:UID")
    return match.group(1), match.group(2)


def sample_key(asset_id: str) -> str:
    """The object's WebDataset key: its id in characters that are safe in any file name.

    WebDataset ends a key at its first dot, so dots are escaped as well.
    """
    source, native = split_asset_id(asset_id)
    return f"{source}-{quote(native, safe='').replace('.', '%2E')}"
