"""What every source of objects can do."""

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
    """Lists objects in parts, and brings their files."""

    prefix: str
    """The source's name in its asset ids."""
    is_local: bool
    """Whether the files can be read again at no cost."""
    revision: str
    """What the listing is read from: a commit, or a digest of what describes the objects; or
    empty."""
    has_captions: bool
    """Whether the records bring captions of their own."""

    def parts(self) -> Mapping[str, str]:
        """The parts of the listing, each with a version of what describes its objects.

        Equal versions mean equal records of the objects that both list; which there are, and what
        their files are, `files` says. Reads the source anew, but no annotation. Raises BadInput.
        """

    def files(self, part: str, lvis: bool) -> Mapping[str, str]:
        """The asset ids of a part, sorted, with the version of the file of each.

        Only those of LVIS if asked. Reads no annotation.
        """

    def read_part(self, name: str) -> list[SourceObject]:
        """The objects of a part, sorted by asset id. Raises BadInput."""

    def fetch(self, path: str, version: str, target: Path) -> Fetched:
        """Write an object's verified file to `target`, atomically.

        `path` and `version` are those of its SourceObject. Raises FetchFailed.
        """
