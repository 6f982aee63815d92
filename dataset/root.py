"""The root of a dataset: its format version, and the configuration of its last build."""

import errno
import json
import logging
import shlex
from typing import Any

from core.config import canonical_json
from core.errors import BadInput, WorkFailed, cannot_write, first_line, is_lost
from core.storage import Storage
from dataset.build_records import BUILDS_FOLDER, read_records
from dataset.catalog.table_uri import table_uri
from dataset.record_schema import check_build

__all__ = [
    "BUILDS_FOLDER",
    "DATASET_FOLDERS",
    "FORMAT_FILE",
    "FORMAT_VERSION",
    "check_root",
    "open_root",
    "read_build",
    "write_build",
]

_log = logging.getLogger(__name__)

FORMAT_VERSION = 2
FORMAT_FILE = "dataset.json"
_BUILD_FILE = "build.json"
DATASET_FOLDERS = (BUILDS_FOLDER, "catalog", "latest", "locks", "snapshots")
"""Folders of the dataset itself; the stages have folders of their own for the files they write."""


def open_root(uri: str) -> Storage:
    """Open an existing dataset. Raises BadInput if there is none or its format is unsupported."""
    root = Storage(uri)
    if not check_root(root):
        raise BadInput(f"{uri}: no dataset here; create one with `lrm build --root {uri} ...`")
    return root


def check_root(root: Storage) -> bool:
    """Return whether the storage contains a dataset; False if it is empty.

    Raises BadInput if the dataset has another format, if the storage contains other files, or if
    the catalog's library cannot use its path; WorkFailed if the storage fails.
    """
    table_uri(root)
    try:
        version = json.loads(root.read(FORMAT_FILE))["format"]
    except FileNotFoundError:
        if root.exists(""):
            if root.exists("catalog"):
                raise _unknown_format(root, "is missing") from None
            _reject_foreign_files(root)
        return False
    except NotADirectoryError:
        raise BadInput(f"{root.uri}: not a folder: a part of the path is a file") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, OSError) and not is_lost(error):
            is_wrong_path = error.errno in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
            kind = BadInput if is_wrong_path else WorkFailed
            raise kind(
                f"{root.uri}: cannot read {FORMAT_FILE}: {error.strerror or error}"
            ) from None
        raise _unknown_format(root, f"is unreadable: {first_line(error)}") from None
    if type(version) is not int:
        raise _unknown_format(root, "is damaged: the format is not a number")
    if version > FORMAT_VERSION:
        raise BadInput(
            f"{root.uri}: dataset format {version} is newer than {FORMAT_VERSION}, the newest that "
            "this version supports; update the software"
        )
    if version < FORMAT_VERSION:
        raise BadInput(
            f"{root.uri}: dataset format {version} is older than {FORMAT_VERSION}, and this "
            "version does not read its catalog; build into an empty root"
        )
    return True


def write_build(root: Storage, build: dict[str, Any]) -> None:
    """Record the format version and the configuration of a build that is about to start.

    Raises BadInput if the root cannot be written, and WorkFailed if its disk is full.
    """
    try:
        path = _BUILD_FILE
        root.write(path, canonical_json(build).encode())
        if not root.exists(path := FORMAT_FILE):
            root.write(path, canonical_json({"format": FORMAT_VERSION}).encode())
    except OSError as error:
        raise cannot_write(f"{root.uri}/{path}: cannot write here", error) from None


def read_build(root: Storage) -> dict[str, Any]:
    """Return the configuration of the last build.

    If build.json is lost or damaged, it is that of the newest record in builds/, and a warning says
    so. Raises WorkFailed if there is none.
    """
    try:
        build = json.loads(root.read(_BUILD_FILE))
        check_build(build)
        if "config" in build:
            return build
        problem = "it has no configuration"
    except (OSError, ValueError, RecursionError) as error:
        build, problem = None, first_line(error)
        if isinstance(error, OSError) and not is_lost(error):
            raise WorkFailed(f"{root.uri}: {_BUILD_FILE} is unreadable: {problem}") from None
    recovered = _recovered_build(root)
    if recovered is not None:
        _log.warning(
            "warning: %s/%s is unreadable: %s: the settings are those of the newest record in %s/; "
            "the next `lrm build` writes it again",
            *(root.uri, _BUILD_FILE, problem, BUILDS_FOLDER),
        )
        return recovered
    if build is not None:
        return build
    raise WorkFailed(
        f"{root.uri}: {_BUILD_FILE} is unreadable: {problem}; restore it from a backup, or build "
        f"into a new root"
    )


def _recovered_build(root: Storage) -> dict[str, Any] | None:
    """Return what the records in builds/ hold of build.json; None if none holds settings."""
    records = [record for record in read_records(root) if record.get("settings")]
    records = [record for record in records if record.get("rig")]
    if not records:
        return None
    rigs = {
        record["rig"]: {"settings": record["settings"], "versions": record.get("versions")}
        for record in records
    }
    newest = records[-1]
    config = newest["settings"] | {"rig": newest["rig"], "root": root.uri}
    ended = {"ended": newest["ended"]} if newest.get("ended") else {}
    return {"config": config, "rigs": rigs, **ended}


def _unknown_format(root: Storage, problem: str) -> BadInput:
    """Return the error of a dataset whose format is not known."""
    content, path = (
        canonical_json({"format": FORMAT_VERSION}),
        shlex.quote(root.resolve(FORMAT_FILE)),
    )
    remedy = f"`rm -rf {path}; echo '{content}' > {path}`"
    if not root.is_local:
        remedy = f"write {content} to this object"
    return BadInput(
        f"{root.uri}: {FORMAT_FILE} {problem}; if this version built the dataset: {remedy}"
    )


def _reject_foreign_files(root: Storage) -> None:
    foreign = [name for name in root.list_files("") if name != _BUILD_FILE]
    if foreign:
        raise BadInput(
            f"{root.uri}: not a dataset, but it contains files (such as {foreign[0]}); give an "
            "empty or new folder"
        )
