"""Where objects come from: Objaverse 1.0 on Hugging Face, or a mirror in the same layout.

Layout: object-paths.json.gz (uid -> path), metadata/NNN-NNN.json.gz (uid -> annotation),
lvis-annotations.json.gz (category -> uids), glbs/NNN-NNN/<uid>.glb.
"""

import gzip
import json
import re
import shutil
import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dataset.errors import BadInput
from dataset.objects import ObjectRecord
from dataset.storage import Storage

__all__ = ["FetchFailed", "Source", "SourceObject", "is_hub", "list_objects", "open_source"]

_OBJAVERSE_REPOSITORY = "allenai/objaverse"
_OBJECT_PATHS = "object-paths.json.gz"
_LVIS = "lvis-annotations.json.gz"
_GLB_PATH = re.compile(r"^glbs/([\w-]+)/[\w-]+\.glb$")


class FetchFailed(Exception):
    """An object's file could not be had; `kind` is `missing` (final) or `download` (transient)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True, kw_only=True)
class SourceObject:
    """An object as its source lists it, with the version of its file."""

    record: ObjectRecord
    version: str
    """Changes when the file may have changed; `missing` if the source lists a file it lacks."""


class Source(Protocol):
    """The files of a source."""

    is_local: bool
    """Whether the files can be read again at no cost."""

    def read(self, path: str) -> bytes:
        """A whole annotation file. Raises FileNotFoundError."""

    def versions(self, folder: str) -> Mapping[str, str] | str:
        """What changes when a file's bytes may have changed: by file name, or one for all."""

    def fetch(self, path: str, target: Path) -> None:
        """Write a file to `target`. Raises FetchFailed."""


class Mirror:
    """A folder or bucket in Objaverse's layout."""

    def __init__(self, uri: str) -> None:
        self._storage = Storage(uri)
        self.is_local = self._storage.is_local

    def read(self, path: str) -> bytes:
        """A whole annotation file. Raises FileNotFoundError."""
        return self._storage.read(path)

    def versions(self, folder: str) -> Mapping[str, str]:
        """Size and time of change, or the store's ETag, of every file in a folder."""
        return {
            name: f"{info['size']}-{info.get('ETag') or info.get('mtime') or ''}"
            for name, info in self._storage.list_details(folder).items()
        }

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file to `target`. Raises FetchFailed."""
        try:
            with self._storage.open(path) as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 22)
        except FileNotFoundError:
            raise FetchFailed("missing", f"{path} is listed but not in the source") from None
        except OSError as error:
            raise FetchFailed("download", f"{path}: {error}") from None


class HuggingFaceObjaverse:
    """Objaverse 1.0 on the Hugging Face hub, read at one commit (HF_ENDPOINT, HF_TOKEN honoured).

    Annotations are kept in the cache folder of the `objaverse` package, where the models that this
    package downloaded earlier are used as well.
    """

    is_local = False

    def __init__(self, revision: str) -> None:
        self._revision = revision

    @classmethod
    def resolve(cls, revision: str) -> "HuggingFaceObjaverse":
        """Pin a branch, tag or commit to the commit it names now. Raises BadInput."""
        import huggingface_hub

        try:
            info = huggingface_hub.HfApi().dataset_info(_OBJAVERSE_REPOSITORY, revision=revision)
        except (huggingface_hub.errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
            problem = str(error).strip().splitlines()[0]
            raise BadInput(
                f"objaverse@{revision}: the hub cannot be asked for {_OBJAVERSE_REPOSITORY}: "
                f"{problem} (HF_ENDPOINT names another hub; --source DIR takes a mirror)"
            ) from None
        return cls(str(info.sha))

    def read(self, path: str) -> bytes:
        """A whole annotation file, from the local cache if it is there. Raises FetchFailed."""
        import objaverse

        cached = Path(objaverse._VERSIONED_PATH) / self._revision / path
        if not cached.exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            self._download(path, cached)
        return cached.read_bytes()

    def versions(self, folder: str) -> str:
        """The commit: a file of one commit never changes."""
        return self._revision

    def fetch(self, path: str, target: Path) -> None:
        """Download a file to `target`. Raises FetchFailed."""
        import objaverse

        cached = Path(objaverse._VERSIONED_PATH) / path
        if cached.exists():
            shutil.copyfile(cached, target)
        else:
            self._download(path, target)

    def _download(self, path: str, target: Path) -> None:
        import huggingface_hub

        try:
            huggingface_hub.hf_hub_download(
                _OBJAVERSE_REPOSITORY,
                path,
                repo_type="dataset",
                revision=self._revision,
                local_dir=target.parent / f".{target.name}.hub",
            )
            (target.parent / f".{target.name}.hub" / path).replace(target)
        except huggingface_hub.errors.RemoteEntryNotFoundError:
            raise FetchFailed("missing", f"{path} is not in the hub at {self._revision}") from None
        except (huggingface_hub.errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
            problem = str(error).strip().splitlines()[0]
            raise FetchFailed("download", f"{path}: {problem}") from None
        finally:
            shutil.rmtree(target.parent / f".{target.name}.hub", ignore_errors=True)


def open_source(name: str) -> Source:
    """`objaverse`, `objaverse@REVISION`, or the folder or URI of a mirror. Raises BadInput."""
    if is_hub(name):
        return HuggingFaceObjaverse.resolve(name.partition("@")[2] or "main")
    return Mirror(name)


def is_hub(name: str) -> bool:
    """Whether a source's name means Objaverse on the Hugging Face hub."""
    return name.partition("@")[0] == "objaverse"


def list_objects(
    source: Source, name: str, captions: Mapping[str, str], limit: int | None
) -> tuple[list[SourceObject], frozenset[str]]:
    """The first `limit` objects in the order of their ids, and the ids of all objects there are.

    Raises BadInput if the source is not in Objaverse's layout.
    """
    paths = _read_json(source, _OBJECT_PATHS, name)
    categories = _categories(_read_json(source, _LVIS, name))
    folders: dict[str, list[str]] = defaultdict(list)
    for uid in sorted(paths)[:limit]:
        folders[_folder(paths[uid], name)].append(uid)
    objects = []
    for folder, uids in folders.items():
        annotations = _read_json(source, f"metadata/{folder}.json.gz", name)
        versions = source.versions(f"glbs/{folder}")
        for uid in uids:
            record = _record(
                uid,
                paths[uid],
                annotations.get(uid) or {},
                categories.get(uid, ()),
                captions.get(uid),
            )
            file = paths[uid].rsplit("/", 1)[-1]
            version = versions if isinstance(versions, str) else versions.get(file, "missing")
            objects.append(SourceObject(record=record, version=version))
    objects.sort(key=lambda item: item.record.asset_id)
    return objects, frozenset(f"objaverse:{uid}" for uid in paths)


def _folder(path: str, name: str) -> str:
    match = _GLB_PATH.match(path) if isinstance(path, str) else None
    if match is None:
        raise BadInput(f"{name}: {_OBJECT_PATHS} is damaged: {path!r} is no glbs/FOLDER/FILE")
    return match.group(1)


def _record(
    uid: str,
    path: str,
    annotation: Mapping[str, Any],
    categories: tuple[str, ...],
    caption: str | None,
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
        caption=(caption or "").strip() or None,
        age_restricted=bool(annotation.get("isAgeRestricted")),
    )


def _categories(lvis: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    by_uid: dict[str, list[str]] = defaultdict(list)
    for category in sorted(lvis):
        for uid in lvis[category]:
            by_uid[uid].append(category)
    return {uid: tuple(names) for uid, names in by_uid.items()}


def _read_json(source: Source, path: str, name: str) -> dict[str, Any]:
    try:
        values = json.loads(gzip.decompress(source.read(path)))
    except FileNotFoundError:
        raise BadInput(f"{name}: is no Objaverse mirror: it has no {path}") from None
    except FetchFailed as error:
        raise BadInput(f"{name}: cannot read {path}: {error}") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise BadInput(f"{name}: {path} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise BadInput(f"{name}: {path} is damaged: it holds no mapping")
    return values
