"""Temporary files that killed writers left in the dataset's own folders.

Those in the folders of stages are garbage like every file there that no result refers to.
"""

import os
import re
import stat
from pathlib import Path

from core.paths.leftovers import old_leftovers
from core.storage import Storage
from dataset.root import DATASET_FOLDERS

__all__ = ["find_temporary_files"]

_INCOMPLETE = re.compile(r".+#\d+")
"""Names that the library of the catalog gives to a file until it is complete."""


def find_temporary_files(root: Storage) -> dict[str, int]:
    """Return the paths of old temporary files with their sizes in bytes.

    A young one may belong to a running command. An object store has none, because an object appears
    when it is complete.
    """
    if not root.is_local:
        return {}
    found = list(old_leftovers(Path(root.uri)))
    for folder in DATASET_FOLDERS:
        also = _INCOMPLETE if folder == "catalog" else None
        for parent, _, _ in os.walk(Path(root.uri, folder)):
            found += old_leftovers(Path(parent), also=also)
    return {
        path.relative_to(root.uri).as_posix(): status.st_size
        for path, status in found
        if stat.S_ISREG(status.st_mode)
    }
