"""The root of a dataset: its format version, and the configuration of its last build."""

import json
from typing import Any

from core.config import canonical_json
from core.errors import BadInput, WorkFailed, cannot_write
from core.storage import Storage
from dataset.catalog.table_uri import table_uri

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

FORMAT_VERSION = 2
FORMAT_FILE = "dataset.json"
_BUILD_FILE = "build.json"
BUILDS_FOLDER = "builds"
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
    the catalog's library cannot use its path.
    """
    table_uri(root)
    try:
        version = json.loads(root.read(FORMAT_FILE))["format"]
    except FileNotFoundError:
        if root.exists(""):
            _reject_foreign_files(root)
        return False
    except NotADirectoryError:
        raise BadInput(f"{root.uri}: not a folder: a part of the path is a file") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{root.uri}: {FORMAT_FILE} is unreadable: {error}") from None
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
        root.write(_BUILD_FILE, canonical_json(build).encode())
        if not root.exists(FORMAT_FILE):
            root.write(FORMAT_FILE, canonical_json({"format": FORMAT_VERSION}).encode())
    except OSError as error:
        raise cannot_write(f"{root.uri}: cannot write here", error) from None


def read_build(root: Storage) -> dict[str, Any]:
    """Return the configuration of the last build. Raises WorkFailed if it is unreadable."""
    try:
        return json.loads(root.read(_BUILD_FILE))
    except (OSError, ValueError) as error:
        raise WorkFailed(f"{root.uri}: {_BUILD_FILE} is unreadable: {error}") from None


def _reject_foreign_files(root: Storage) -> None:
    foreign = [name for name in root.list_files("") if name != _BUILD_FILE]
    if foreign:
        raise BadInput(
            f"{root.uri}: not a dataset, but it contains files (such as {foreign[0]}); give an "
            "empty or new folder"
        )
