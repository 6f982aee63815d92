"""A source that is a folder or bucket of GLB files at any depth, described by an optional CSV."""

import hashlib
import re
import zlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.config import digest
from core.errors import BadInput
from core.storage import Storage
from dataset.object_record import ObjectRecord
from glb.limits import GlbLimits
from pipelines.sources.objects_table import ObjectsTable, read_objects_table
from pipelines.sources.skipped_rows import SkippedRows, shown, text_problem
from pipelines.sources.source import SourceObject
from pipelines.sources.stored_files import copy_glb, read_table_file, reading
from pipelines.transfers.outcome import FetchedFile

__all__ = ["OBJECTS_CSV", "Folder"]

OBJECTS_CSV = "objects.csv"
_MAX_BYTES = 1 << 30
"""Maximum size of the CSV: a kilobyte per object for a million objects."""
_SUFFIX = ".glb"


@dataclass(frozen=True)
class _Listing:
    files: Mapping[str, Mapping[str, str]]
    """For each part, the version of each file by its path, in the order of the asset ids."""
    rows: Mapping[str, Mapping[str, str]]
    """The rows of the CSV, by path."""
    problems: Mapping[str, str]
    """Why the row of a file cannot be read, by path."""
    tables: tuple[SkippedRows, ...]


class Folder:
    """The objects of a folder of GLB files.

    An asset id is `folder:` and the file's path without .glb. The listing has 256 parts; a hash of
    the path assigns a file to its part.
    """

    prefix = "folder"
    has_captions = True

    def __init__(self, uri: str, csv_uri: str | None) -> None:
        self.name = uri
        self._csv = csv_uri
        self._storage = Storage(uri)
        self.is_local = self._storage.is_local
        self.revision = ""
        self._listing: _Listing | None = None

    def __reduce__(self) -> tuple[type["Folder"], tuple[str, str | None]]:
        return Folder, (self.name, self._csv)

    def parts(self) -> Mapping[str, str]:
        """Return the parts, each with a digest of its CSV rows. Raises BadInput."""
        self._listing = None
        listing = self._list()
        return {
            part: digest(
                [
                    {path: table[path] for path in files if path in table}
                    for table in (listing.rows, listing.problems)
                ]
            )
            for part, files in listing.files.items()
        }

    def files(self, part: str, lvis: bool) -> Mapping[str, str]:
        """Return the asset ids of a part and the versions of their files.

        With `lvis`, return none: a folder has no LVIS categories.
        """
        versions = self._list().files[part]
        return {} if lvis else {_asset_id(path): version for path, version in versions.items()}

    def read_part(self, name: str) -> list[SourceObject]:
        """Return the objects of a part, sorted by asset id. Raises BadInput."""
        listing = self._list()
        return [
            SourceObject(
                record=_record(path, listing.rows.get(path, {})),
                version=version,
                problem=listing.problems.get(path, ""),
            )
            for path, version in listing.files[name].items()
        ]

    def fetch(
        self, path: str, version: str, target: Path, max_bytes: int = GlbLimits.max_file_bytes
    ) -> FetchedFile:
        """Copy the file to `target` atomically, if it has this version. Raises FetchFailed."""
        return copy_glb(self._storage, path, version, target, max_bytes)

    def skipped_rows(self) -> Sequence[SkippedRows]:
        """Return the tables of the listing, with the number of rows that were skipped."""
        return self._list().tables

    def _list(self) -> _Listing:
        if self._listing is None:
            with reading(self.name):
                unreadable: dict[str, str] = {}
                files = self._storage.versions(deep=True, on_problem=unreadable.__setitem__)
            names = SkippedRows(table=self.name)
            models = _models(files, names)
            for path, problem in unreadable.items():
                # A folder may have any name; one that cannot be listed may hold models.
                if path.lower().endswith((_SUFFIX, "/")):
                    names.num_rows += 1
                    names.skip(shown(path), problem)
            # Without models, the folder is what is wrong, not the table.
            table = self._read_csv(OBJECTS_CSV in files, models) if models else None
            parts: dict[str, dict[str, str]] = defaultdict(dict)
            for path in sorted(models, key=_asset_id):
                parts[f"{zlib.crc32(path.encode()) & 0xFF:02x}"][path] = models[path]
            tables = (names,) if table is None else (names, table.skipped)
            rows = {} if table is None else table.rows
            problems = {} if table is None else table.problems
            self._listing = _Listing(dict(sorted(parts.items())), rows, problems, tables)
        return self._listing

    def _read_csv(self, in_folder: bool, models: Collection[str]) -> ObjectsTable | None:
        if self._csv is None and not in_folder:
            return None
        where = self._csv or f"{self.name}/{OBJECTS_CSV}"
        try:
            with reading(where):
                storage, name = (
                    (Storage(self._csv), "") if self._csv else (self._storage, OBJECTS_CSV)
                )
                data = read_table_file(storage, name, _MAX_BYTES)
        except FileNotFoundError as error:
            raise BadInput(f"{where}: cannot read the table of objects: {error}") from None
        self.revision = hashlib.sha256(data).hexdigest()[:16]
        table = read_objects_table(data, where, models)
        if table.rows and not table.rows.keys() & models:
            text = f"no path in {where} names a .glb file of this folder"
            raise BadInput(f"{self.name}: {text} (paths are relative to it and end with .glb)")
        return table


def _models(files: Mapping[str, str], skipped: SkippedRows) -> dict[str, str]:
    """Return the versions of the GLB files; of two paths with the same asset id, of the last."""
    models: dict[str, str] = {}
    paths: dict[str, str] = {}
    for path in sorted(files):
        if not path.lower().endswith(_SUFFIX):
            continue
        skipped.num_rows += 1
        if text_problem(path):
            skipped.skip(shown(path), "the name is not valid UTF-8: rename the file")
            continue
        other = paths.get(_asset_id(path))
        if other is not None:
            del models[other]
            text = f"has the same asset id as {shown(path)}: rename one of them"
            skipped.skip(shown(other), text)
        paths[_asset_id(path)] = path
        models[path] = files[path]
    skipped.require_most_readable()
    return models


def _asset_id(path: str) -> str:
    return f"folder:{path[: -len(_SUFFIX)]}"


def _record(path: str, row: Mapping[str, str]) -> ObjectRecord:
    def cell(name: str) -> str | None:
        return row.get(name, "").strip() or None

    tags = re.split(r"[,;]", cell("tags") or "")
    return ObjectRecord(
        asset_id=_asset_id(path),
        path=path,
        name=cell("name") or PurePosixPath(path).name[: -len(_SUFFIX)],
        licence=cell("licence"),
        author=cell("author"),
        tags=tuple(tag.strip() for tag in tags if tag.strip()),
        categories=(),
        caption=cell("caption"),
        age_restricted=False,
    )
