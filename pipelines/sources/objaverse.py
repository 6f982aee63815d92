"""The listing of a source in Objaverse's layout, on the hub or in a mirror.

The layout: object-paths.json.gz (uid -> path), metadata/NNN-NNN.json.gz (uid -> annotation),
lvis-annotations.json.gz (category -> uids), glbs/NNN-NNN/<uid>.glb.
"""

import gzip
import json
import re
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import digest
from core.errors import BadInput
from dataset.object_record import ObjectRecord
from pipelines.sources.source import SourceObject
from pipelines.sources.stored_files import MISSING
from pipelines.transfers.outcome import Fetched, FetchFailed

__all__ = ["OBJECT_PATHS", "ObjaverseSource"]

OBJECT_PATHS = "object-paths.json.gz"
_LVIS = "lvis-annotations.json.gz"
_GLB_PATH = re.compile(r"glbs/([\w-]+)/[\w-]+\.glb", re.ASCII)


@dataclass(frozen=True)
class _Index:
    folders: Mapping[str, Mapping[str, str]]
    """For each folder, the path of each file by its uid; folders and uids are sorted."""
    categories: Mapping[str, tuple[str, ...]]
    """LVIS categories by uid."""


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
    def annotation_versions(self) -> Mapping[str, str]:
        """Return the versions of the files in metadata/, by name."""

    @abstractmethod
    def glb_versions(self, folder: str) -> Mapping[str, str] | str:
        """Return the versions of the files in glbs/`folder` by name, or one version for all."""

    @abstractmethod
    def fetch(self, path: str, version: str, target: Path) -> Fetched:
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
            record = _record(uid, path, annotations.get(uid) or {}, index.categories.get(uid, ()))
            objects.append(SourceObject(record=record, version=_version_of(path, versions)))
        return objects

    def _read_index(self) -> _Index:
        if self._index is None:
            folders: dict[str, dict[str, str]] = defaultdict(dict)
            paths = self._read_json(OBJECT_PATHS)
            for uid in sorted(paths):
                folders[self._folder(paths[uid])][uid] = paths[uid]
            categories = _categories(self._read_json(_LVIS))
            self._index = _Index(dict(sorted(folders.items())), categories)
        return self._index

    def _folder(self, path: Any) -> str:
        match = _GLB_PATH.fullmatch(path) if isinstance(path, str) else None
        if match is None:
            text = f"{OBJECT_PATHS} is damaged: {path!r} is not of the form glbs/FOLDER/FILE.glb"
            raise BadInput(f"{self.name}: {text}")
        return match.group(1)

    def _read_json(self, path: str) -> dict[str, Any]:
        try:
            values = json.loads(gzip.decompress(self.read(path)))
        except FileNotFoundError:
            raise BadInput(f"{self.name}: is not an Objaverse mirror: {path} is missing") from None
        except FetchFailed as error:
            raise BadInput(f"{self.name}: cannot read {path}: {error}") from None
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise BadInput(f"{self.name}: {path} is damaged: {error}") from None
        if not isinstance(values, dict):
            raise BadInput(f"{self.name}: {path} is damaged: it is not a JSON object")
        return values


def _version_of(path: str, versions: Mapping[str, str] | str) -> str:
    if isinstance(versions, str):
        return versions
    return versions.get(path.rsplit("/", 1)[-1], MISSING)


def _record(
    uid: str, path: str, annotation: Mapping[str, Any], categories: tuple[str, ...]
) -> ObjectRecord:
    user = annotation.get("user")
    tags = (
        tag.get("name") if isinstance(tag, dict) else tag for tag in annotation.get("tags") or ()
    )
    return ObjectRecord(
        asset_id=f"objaverse:{uid}",
        path=path,
        name=str(annotation.get("name") or ""),
        licence=annotation.get("license"),
        author=user.get("username") if isinstance(user, dict) else user,
        tags=tuple(str(tag) for tag in tags if tag),
        categories=categories,
        caption=None,
        age_restricted=bool(annotation.get("isAgeRestricted")),
    )


def _categories(lvis: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    by_uid: dict[str, list[str]] = defaultdict(list)
    for category in sorted(lvis):
        for uid in lvis[category]:
            by_uid[uid].append(category)
    return {uid: tuple(names) for uid, names in by_uid.items()}
