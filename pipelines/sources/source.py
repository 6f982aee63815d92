"""The interface of all sources of objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dataset.object_record import ObjectRecord
from pipelines.transfers.outcome import Fetched

__all__ = ["Source", "SourceObject"]


@dataclass(frozen=True, kw_only=True)
class SourceObject:
    """An object as its source lists it, with the version of its file."""

    record: ObjectRecord
    version: str
    """Changes when the file may have changed; `missing` if the source lists a file it lacks."""


class Source(Protocol):
    """Lists objects in parts, and copies or downloads their files."""

    prefix: str
    """The source's name in its asset ids."""
    is_local: bool
    """Whether the files can be read again at no cost."""
    revision: str
    """A commit, or a digest of the file that describes the objects; empty if there is neither."""
    has_captions: bool
    """Whether the records have captions of their own."""

    def parts(self) -> Mapping[str, str]:
        """Return the parts of the listing, each with a version of its objects' records.

        If two listings have equal versions of a part, the objects that both list have equal
        records; `files` says which objects there are, and the versions of their files. Reads the
        source anew, but no annotation. Raises BadInput.
        """

    def files(self, part: str, lvis: bool) -> Mapping[str, str]:
        """Return the asset ids of a part, sorted, with the version of the file of each.

        With `lvis`, only objects of LVIS. Reads no annotation.
        """

    def read_part(self, name: str) -> list[SourceObject]:
        """Return the objects of a part, sorted by asset id. Raises BadInput."""

    def fetch(self, path: str, version: str, target: Path) -> Fetched:
        """Write an object's verified file to `target`, atomically.

        `path` and `version` are those of its SourceObject. Raises FetchFailed.
        """
