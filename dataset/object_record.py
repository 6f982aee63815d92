"""The metadata of an object that its source lists: id, path, licence, tags, caption."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from core.config import digest
from core.errors import BadInput

__all__ = ["ObjectRecord", "sample_key", "split_asset_id"]

_MAX_KEY = 200
"""Characters of a key; file systems allow names of 255 bytes, some of them for a suffix."""
_ASSET_ID = re.compile(r"^([a-z0-9_]+):(.+)$", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ObjectRecord:
    """The metadata of one object as its source lists it."""

    asset_id: str
    """`source:native_id`, for example `objaverse:8476c4170df24cf5bbe6967222d1a42d`."""
    path: str
    """Path of the object's file below the source's root."""
    name: str
    licence: str | None
    author: str | None
    tags: tuple[str, ...]
    categories: tuple[str, ...]
    """LVIS categories; empty for an object outside LVIS."""
    caption: str | None
    """The caption without surrounding space, or None."""
    age_restricted: bool

    def to_dict(self) -> dict[str, Any]:
        """Convert the record to plain values for JSON."""
        values = dataclasses.asdict(self)
        return values | {"tags": list(self.tags), "categories": list(self.categories)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Create a record from the values of `to_dict`."""
        lists = {name: tuple(values[name]) for name in ("tags", "categories")}
        return cls(**values | lists)


def split_asset_id(asset_id: str) -> tuple[str, str]:
    """Split `objaverse:abc` into (`objaverse`, `abc`). Raises BadInput for another form."""
    match = _ASSET_ID.match(asset_id)
    if match is None:
        raise BadInput(f"{asset_id!r} is not an asset id; an asset id looks like objaverse:UID")
    return match.group(1), match.group(2)


def sample_key(asset_id: str) -> str:
    """Return the object's WebDataset key: its id, escaped for use in file names.

    WebDataset ends a key at its first dot, so dots are escaped as well. A key that would be too
    long for a file name is cut and ends with a digest of the id.
    """
    source, native = split_asset_id(asset_id)
    key = f"{source}-{quote(native, safe='').replace('.', '%2E')}"
    return key if len(key) <= _MAX_KEY else f"{key[: _MAX_KEY - 17]}-{digest(asset_id)}"
