"""The listing of a source in Objaverse's layout, on the hub or in a mirror.

The layout: object-paths.json.gz (uid -> path), metadata/NNN-NNN.json.gz (uid -> annotation),
lvis-annotations.json.gz (category -> uids), glbs/NNN-NNN/<uid>.glb.
"""

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import digest
from core.errors import BadInput
from glb.limits import GlbLimits
from pipelines.sources.annotation import read_annotation
from pipelines.sources.json_tables import read_table
from pipelines.sources.objaverse_ids import is_objaverse_id
from pipelines.sources.skipped_rows import SkippedRows, shown, text_problem
from pipelines.sources.source import SourceObject
from pipelines.sources.stored_files import MISSING
from pipelines.transfers.outcome import FetchedFile, FetchFailed

__all__ = ["LVIS", "OBJECT_PATHS", "ObjaverseSource"]

OBJECT_PATHS = "object-paths.json.gz"
LVIS = "lvis-annotations.json.gz"
_GLB_PATH = re.compile(r"glbs/([\w-]{1,64})/[\w-]{1,128}\.glb", re.ASCII)


@dataclass(frozen=True)
class _Index:
    folders: Mapping[str, Mapping[str, str]]
    """For each folder, the path of each file by its uid; folders and uids are sorted."""
    categories: Mapping[str, tuple[str, ...]]
    """LVIS categories by uid."""
    tables: tuple[SkippedRows, ...]
    """The tables that the index was read from, with their skipped rows."""


class ObjaverseSource(ABC):
    """The objects of a source in Objaverse's layout; subclasses read its files.

    A part of the listing is a folder such as 000-012.
    """

    prefix = "objaverse"
    is_local = False
    has_captions = False
    revision = ""

    def __init__(self, name: str) -> None:
        self.name = name
        """The source as the user wrote it, for messages."""
        self._index: _Index | None = None

    @abstractmethod
    def read(self, path: str) -> bytes:
        """Return a whole annotation file. Raises FileNotFoundError, FetchFailed, BadInput."""

    @abstractmethod
    def remedy(self, path: str) -> str:
        """Return what to do if an annotation file is damaged."""

    @abstractmethod
    def annotation_versions(self) -> Mapping[str, str]:
        """Return the versions of the files in metadata/, by name."""

    @abstractmethod
    def glb_versions(self, folder: str) -> Mapping[str, str] | str:
        """Return the versions of the files in glbs/`folder` by name, or one version for all."""

    @abstractmethod
    def fetch(
        self, path: str, version: str, target: Path, max_bytes: int = GlbLimits.max_file_bytes
    ) -> FetchedFile:
        """Write a verified file to `target`, atomically. Raises FetchFailed."""

    def parts(self) -> Mapping[str, str]:
        """Return the folders, each with a digest of its annotations' version and of LVIS.

        Raises BadInput.
        """
        self._index = None
        index = self._read_index()
        annotations = self.annotation_versions()
        lvis = digest(dict(index.categories))
        return {
            folder: digest([lvis, annotations.get(f"{folder}.json.gz")]) for folder in index.folders
        }

    def files(self, part: str, lvis: bool) -> Mapping[str, str]:
        """Return the asset ids of a folder and the versions of their files."""
        index, versions = self._read_index(), self.glb_versions(part)
        return {
            f"{self.prefix}:{uid}": _version_of(path, versions)
            for uid, path in index.folders[part].items()
            if not lvis or uid in index.categories
        }

    def read_part(self, name: str) -> list[SourceObject]:
        """Return the objects of a folder, sorted by asset id. Raises BadInput."""
        index = self._read_index()
        annotations = self._read_json(f"metadata/{name}.json.gz")
        versions = self.glb_versions(name)
        objects = []
        for uid, path in index.folders[name].items():
            record, problem = read_annotation(
                annotations.get(uid),
                asset_id=f"{self.prefix}:{uid}",
                path=path,
                categories=index.categories.get(uid, ()),
            )
            version = _version_of(path, versions)
            objects.append(SourceObject(record=record, version=version, problem=problem))
        return objects

    def skipped_rows(self) -> Sequence[SkippedRows]:
        """Return the tables of the listing, with the number of rows that were skipped."""
        return self._read_index().tables

    def _read_index(self) -> _Index:
        if self._index is None:
            paths, lvis = (
                SkippedRows(table=f"{self.name}: {path}") for path in (OBJECT_PATHS, LVIS)
            )
            folders = _folders(self._read_json(OBJECT_PATHS), paths)
            categories = _categories(self._read_json(LVIS), lvis)
            self._index = _Index(folders, categories, (paths, lvis))
        return self._index

    def _read_json(self, path: str) -> dict[str, Any]:
        try:
            return read_table(self.read(path))
        except FileNotFoundError:
            raise BadInput(f"{self.name}: is not an Objaverse mirror: {path} is missing") from None
        except FetchFailed as error:
            raise BadInput(f"{self.name}: cannot read {path}: {error}") from None
        except ValueError as error:
            raise BadInput(
                f"{self.name}: {path} is damaged: {error}; {self.remedy(path)}"
            ) from None


def _version_of(path: str, versions: Mapping[str, str] | str) -> str:
    if isinstance(versions, str):
        return versions
    return versions.get(path.rsplit("/", 1)[-1], MISSING)


def _folders(paths: Mapping[str, Any], skipped: SkippedRows) -> dict[str, dict[str, str]]:
    """Return, for each folder, the path of each file by its uid; both are sorted."""
    folders: dict[str, dict[str, str]] = defaultdict(dict)
    skipped.num_rows = len(paths)
    for uid in sorted(paths):
        path = paths[uid]
        match = _GLB_PATH.fullmatch(path) if isinstance(path, str) else None
        if not is_objaverse_id(uid):
            skipped.skip(shown(uid), "is not an id")
        elif match is None:
            skipped.skip(uid, f"{shown(path)} is not of the form glbs/FOLDER/FILE.glb")
        else:
            folders[match.group(1)][uid] = path
    skipped.require_most_readable()
    return dict(sorted(folders.items()))


def _categories(lvis: Mapping[str, Any], skipped: SkippedRows) -> dict[str, tuple[str, ...]]:
    """Return the LVIS categories of each uid, sorted."""
    by_uid: dict[str, dict[str, None]] = defaultdict(dict)
    for category in sorted(lvis):
        uids, problem = lvis[category], text_problem(category)
        if not problem and not isinstance(uids, list):
            problem = "is not a list of ids"
        if problem:
            uids = []
            skipped.num_rows += 1
            skipped.skip(shown(category), problem)
        skipped.num_rows += len(uids)
        for uid in uids:
            if isinstance(uid, str) and is_objaverse_id(uid):
                by_uid[uid][category] = None
            else:
                skipped.skip(shown(category), f"{shown(uid)} is not an id")
    skipped.require_most_readable()
    return {uid: tuple(names) for uid, names in by_uid.items()}
