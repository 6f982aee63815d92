"""The base files in `latest/` and their index: read only if they are as they were written.

The index names the commit that the files were made from, by its SHA-256, and each file by its size
and the SHA-256 of its footer. The footer describes all pages of the file, and every page has a
checksum, so a reader of a few columns notices damage to them without reading the whole file.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.config import canonical_json, digest
from core.storage import Storage

__all__ = [
    "BASE_FOLDER",
    "INDEX",
    "NO_BASE",
    "BadBase",
    "Base",
    "BaseFile",
    "StageRig",
    "check_base_file",
    "read_base_file",
    "read_index",
    "write_base_file",
    "write_index",
]

StageRig = tuple[str, str]
"""A stage and the rig of its events; the rig is empty for stages that do not depend on it."""

BASE_FOLDER = "latest"
INDEX = f"{BASE_FOLDER}/index.json"
_TAIL = 8
"""Bytes at the end of a Parquet file: the length of its footer, and a magic number."""


class BadBase(Exception):
    """Base files that are damaged, or were made from another log."""


@dataclass(frozen=True, kw_only=True)
class BaseFile:
    """A base file as it was written."""

    path: str
    size: int
    footer: str
    """SHA-256 of its footer."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """The existing base files, and the part of the log that they cover."""

    files: Mapping[StageRig, BaseFile]
    seq: int
    """They cover every event up to this number."""
    log: frozenset[str]
    """Names of the files of the log that contained these events."""


NO_BASE = Base(files={}, seq=0, log=frozenset())


def read_index(root: Storage, projection: str, commit_digest: Callable[[int], str]) -> Base:
    """Return the base; `NO_BASE` if there is none, or one of another projection or version.

    `commit_digest` is the log's digest of the last commit before a `seq`. Raises BadBase if the
    index is damaged, or was made from another log.
    """
    try:
        index = json.loads(root.read(INDEX))
        if index["projection"] != projection or "commit" not in index:
            return NO_BASE
        if digest({**index, "digest": ""}) != index["digest"]:
            raise BadBase(f"{INDEX} is damaged")
        files = {
            (stage, rig): BaseFile(path=path, size=size, footer=footer)
            for stage, rig, path, size, footer in index["files"]
        }
        base = Base(files=files, seq=int(index["seq"]), log=frozenset(index["log"]))
        commit = index["commit"]
    except FileNotFoundError:
        return NO_BASE
    except (OSError, ValueError, KeyError, TypeError):
        raise BadBase(f"{INDEX} is torn or damaged") from None
    if not commit or commit_digest(base.seq) != commit:
        raise BadBase(f"{INDEX} was made from another log than catalog/, such as before a restore")
    return base


def write_index(root: Storage, projection: str, base: Base, commit: str) -> None:
    """Write the index of base files that were made from the log up to a commit."""
    index = {
        "projection": projection,
        "files": [[*key, f.path, f.size, f.footer] for key, f in sorted(base.files.items())],
        "seq": base.seq,
        "commit": commit,
        "log": sorted(base.log),
        "digest": "",
    }
    root.write(INDEX, canonical_json({**index, "digest": digest(index)}).encode())


def write_base_file(root: Storage, path: str, rows: pa.Table) -> BaseFile:
    """Write the last events of one stage and rig."""
    with root.writing(path) as file:
        pq.write_table(rows, file, compression="zstd", write_page_checksum=True)
    with root.open(path) as file:
        return BaseFile(path=path, size=file.seek(0, 2), footer=_footer_digest(file))


def read_base_file(
    root: Storage,
    base: BaseFile,
    columns: Collection[str] | None = None,
    only: pc.Expression | None = None,
) -> pa.Table:
    """Return columns of a base file. Raises BadBase, or FileNotFoundError."""
    names = None if columns is None else list(columns)
    try:
        with root.open(base.path) as file:
            _require_same(base, file)
            # A thread of Arrow that releases a Python file while the process ends would abort it.
            source = pa.OSFile(file.name) if root.is_local else file
            return pq.read_table(
                source, columns=names, filters=only, page_checksum_verification=True
            )
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError):
        raise BadBase(f"{base.path} is damaged") from None


def check_base_file(root: Storage, base: BaseFile) -> None:
    """Raise BadBase if the size or the footer of a file differ, or FileNotFoundError."""
    with root.open(base.path) as file:
        _require_same(base, file)


def _require_same(base: BaseFile, file: IO[bytes]) -> None:
    if file.seek(0, 2) != base.size or _footer_digest(file) != base.footer:
        raise BadBase(f"{base.path} is not as it was written")
    file.seek(0)


def _footer_digest(file: IO[bytes]) -> str:
    """Return the SHA-256 of the footer of an open Parquet file."""
    end = file.seek(0, 2)
    file.seek(max(0, end - _TAIL))
    length = int.from_bytes(file.read(_TAIL)[: _TAIL // 2], "little")
    file.seek(max(0, end - _TAIL - length))
    return hashlib.sha256(file.read()).hexdigest()
