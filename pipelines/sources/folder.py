"""A source that is a folder or bucket of GLB files at any depth, described by an optional CSV."""

import csv
import hashlib
import io
import re
import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.config import digest
from core.errors import BadInput
from core.storage import Storage
from dataset.object_record import ObjectRecord
from pipelines.sources.source import SourceObject
from pipelines.sources.stored_files import copy_glb, reading
from pipelines.transfers.outcome import Fetched

__all__ = ["OBJECTS_CSV", "Folder"]

OBJECTS_CSV = "objects.csv"
_COLUMNS = ("path", "caption", "tags", "licence", "author", "name")
_SPELLINGS = {"license": "licence"}
"""Other accepted spellings of columns."""
_SUFFIX = ".glb"


@dataclass(frozen=True)
class _Listing:
    files: Mapping[str, Mapping[str, str]]
    """For each part, the version of each file by its path, in the order of the asset ids."""
    rows: Mapping[str, Mapping[str, str]]
    """The rows of the CSV, by path."""


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
            part: digest({path: listing.rows[path] for path in files if path in listing.rows})
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
            SourceObject(record=_record(path, listing.rows.get(path, {})), version=version)
            for path, version in listing.files[name].items()
        ]

    def fetch(self, path: str, version: str, target: Path) -> Fetched:
        """Copy the file to `target` atomically, if it has this version. Raises FetchFailed."""
        return copy_glb(self._storage, path, version, target)

    def _list(self) -> _Listing:
        if self._listing is None:
            with reading(self.name):
                files = self._storage.versions(deep=True)
            models = {path: files[path] for path in files if path.lower().endswith(_SUFFIX)}
            self._require_names(models)
            rows = self._read_csv(OBJECTS_CSV in files)
            if rows and not rows.keys() & models.keys():
                text = f"no path in {self._csv or OBJECTS_CSV} names a .glb file of this folder"
                raise BadInput(f"{self.name}: {text} (paths are relative to it and end with .glb)")
            parts: dict[str, dict[str, str]] = defaultdict(dict)
            for path in sorted(models, key=_asset_id):
                parts[f"{zlib.crc32(path.encode()) & 0xFF:02x}"][path] = models[path]
            self._listing = _Listing(dict(sorted(parts.items())), rows)
        return self._listing

    def _require_names(self, models: Mapping[str, str]) -> None:
        """Raise BadInput unless every path is UTF-8 and no two paths give the same asset id."""
        paths: dict[str, str] = {}
        for path in models:
            try:
                path.encode()
            except UnicodeEncodeError:
                raise BadInput(
                    f"{self.name}: the name of {path!r} is not valid UTF-8: rename the file"
                ) from None
            other = paths.setdefault(_asset_id(path), path)
            if other != path:
                text = f"{other!r} and {path!r} have the same asset id: rename one of them"
                raise BadInput(f"{self.name}: {text}")

    def _read_csv(self, in_folder: bool) -> dict[str, dict[str, str]]:
        if self._csv is None and not in_folder:
            return {}
        where = self._csv or f"{self.name}/{OBJECTS_CSV}"
        try:
            with reading(where):
                folder, _, file = where.rpartition("/")
                data = Storage(folder).read(file) if self._csv else self._storage.read(OBJECTS_CSV)
            text = data.decode("utf-8-sig")
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise BadInput(f"{where}: cannot read the table of objects: {error}") from None
        self.revision = hashlib.sha256(data).hexdigest()[:16]
        return _parse(text, where)


def _parse(text: str, where: str) -> dict[str, dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: dict[str, dict[str, str]] = {}
    try:
        columns = [_SPELLINGS.get(name, name) for name in reader.fieldnames or []]
        unknown = [name for name in columns if name not in _COLUMNS]
        if "path" not in columns or unknown or len(set(columns)) < len(columns):
            allowed = ", ".join(_COLUMNS[1:])
            raise BadInput(
                f"{where}: line 1 must name the columns: path and any of {allowed}, each once"
            )
        reader.fieldnames = columns
        for row in reader:
            if None in row or None in row.values():
                expected = f"expected {len(columns)} values, one per column"
                raise BadInput(f"{where} line {reader.line_num}: {expected}")
            rows[row["path"].removeprefix("./")] = row
    except csv.Error as error:
        raise BadInput(f"{where} line {reader.line_num}: {error}") from None
    return rows


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
