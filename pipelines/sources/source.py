"""The interface of a source of objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dataset.object_record import ObjectRecord
from glb.limits import GlbLimits
from pipelines.sources.skipped_rows import SkippedRows
from pipelines.transfers.outcome import FetchedFile

__all__ = ["Source", "SourceObject"]


@dataclass(frozen=True, kw_only=True)
class SourceObject:
    """An object in the listing of its source, with the version of its file."""

    record: ObjectRecord
    version: str
    """A string that changes whenever the file may have changed; `missing` if the listed file does
    not exist."""
    problem: str = ""
    """Why the annotation of the object cannot be used; empty if it can."""


class Source(Protocol):
    """A source: its listing of objects, in parts, and their files."""

    prefix: str
    """The part of its asset ids before the colon."""
    is_local: bool
    """Whether the files have local paths, so that reading them again costs nothing."""
    revision: str
    """The commit, or a digest of the CSV that describes the objects; empty if there is neither."""
    has_captions: bool
    """Whether the listing itself holds captions."""

    def parts(self) -> Mapping[str, str]:
        """Return the parts of the listing, each with a version of its objects' records.

        If a part has the same version in two listings, the objects in both have equal records;
        `files` returns which objects there are, with the versions of their files. Every call reads
        the source again, but no annotations. Raises BadInput.
        """

    def files(self, part: str, lvis: bool) -> Mapping[str, str]:
        """Return the asset ids of a part, sorted, each with the version of its file.

        With `lvis`, return only objects of LVIS. No annotations are read.
        """

    def read_part(self, name: str) -> list[SourceObject]:
        """Return the objects of a part, sorted by asset id. Raises BadInput."""

    def skipped_rows(self) -> Sequence[SkippedRows]:
        """Return the tables of the present listing, with the rows that could not be read."""

    def fetch(
        self, path: str, version: str, target: Path, max_bytes: int = GlbLimits.max_file_bytes
    ) -> FetchedFile:
        """Write an object's verified file to `target`, atomically.

        `path` and `version` come from its SourceObject. Raises FetchFailed, also (too_large) for a
        file of more than `max_bytes`.
        """
