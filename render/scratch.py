"""Temporary folders on local disk, named after the process that owns them.

A killed worker removes nothing, so the next worker on the same machine removes its folders.
"""

import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

import psutil

__all__ = ["remove_orphans", "scratch_folder"]

_NAME = re.compile(r"^lrm-(?P<host>.+)-(?P<pid>\d+)-\w+-\w+$")


def scratch_folder(purpose: str) -> "tempfile.TemporaryDirectory[str]":
    """Create a folder named after this host and process, removed with the returned object."""
    return tempfile.TemporaryDirectory(
        prefix=f"lrm-{socket.gethostname()}-{os.getpid()}-{purpose}-"
    )


def remove_orphans() -> list[Path]:
    """Remove the scratch folders of processes of this host that have ended; return their paths.

    The host is part of the name because containers may share a temporary folder, but not process
    ids.
    """
    removed = []
    for path in Path(tempfile.gettempdir()).glob("lrm-*"):
        match = _NAME.match(path.name)
        if match is None or match["host"] != socket.gethostname():
            continue
        if not psutil.pid_exists(int(match["pid"])):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed
