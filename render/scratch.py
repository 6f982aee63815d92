"""Temporary folders on local disk that say whose they are, so that others can clean up.

A worker that is killed removes nothing; the next one on the same machine does it for it.
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
    """A folder that goes with the object that this returns; its name holds host and process."""
    return tempfile.TemporaryDirectory(
        prefix=f"lrm-{socket.gethostname()}-{os.getpid()}-{purpose}-"
    )


def remove_orphans() -> list[Path]:
    """Remove the scratch folders of this host's processes that are gone; what was removed.

    The host is part of the name because containers may share a temporary folder, but no processes.
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
