"""The file system of what a user gives as a folder: a local path, taken literally, or a URI."""

import os
import re
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from core.errors import BadInput
from core.remote.remote_files import RemoteFiles
from core.remote.store_client import client_options
from core.safe_text import printable

__all__ = ["open_location"]

_URI = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*(::[a-zA-Z][a-zA-Z0-9+.-]*)*://")
"""Start of a URI, such as `s3://` or `simplecache::s3://`."""
_UNUSABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and bytes that are not UTF-8 (Python reads them as lone surrogates)."""


def open_location(location: str | Path) -> tuple[Any, str]:
    """Return an fsspec file system and the name of the folder in it.

    A local path becomes absolute and is otherwise literal, except that a text may start with `~`
    for the home folder. Raises BadInput if the location cannot be used.
    """
    text = str(location)
    if not text:
        raise BadInput("the path of a folder or file is empty; `.` is the current folder")
    if unusable := _UNUSABLE.search(text):
        shown = printable(text).replace("\n", r"\n")
        raise BadInput(
            f"{shown}: the name contains {unusable[0]!a}, a control character or a byte that "
            "is not UTF-8; rename the folder or file"
        )
    if isinstance(location, str) and _URI.match(location):
        try:
            # Other processes also write here; a cached listing would hide their files.
            options = client_options(location)
            fs, path = fsspec.core.url_to_fs(location, use_listings_cache=False, **options)
        except (ValueError, ImportError) as error:
            raise BadInput(f"{location}: cannot open this storage: {error}") from None
        is_local = isinstance(fs, LocalFileSystem)
        return (fs if is_local else RemoteFiles(fs, location)), path
    # fsspec would read `file:` or `::` in a local name as a part of a URI.
    # `Path.expanduser` fails for `~name` if there is no such user; this leaves the text as it is.
    path = location if isinstance(location, Path) else Path(os.path.expanduser(location))  # noqa: PTH111
    try:
        return fsspec.filesystem("file"), str(path.absolute())
    except FileNotFoundError:
        raise BadInput(
            f"{location}: the current folder does not exist any more; change to another one, or "
            "give an absolute path"
        ) from None
