"""Processes of the command line, and Python environments for them."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.support.paths import REPOSITORY


def start_lrm(words: list[str]) -> subprocess.Popen:
    """Start `lrm` with these arguments in the background, without output."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def environment_without(folder: Path, *names: str) -> Path:
    """Create a virtual environment that lacks some of the installed packages.

    Return its Python interpreter. This project is not installed in it either.
    """
    libraries = Path(sysconfig.get_path("purelib"))
    site = folder / "lib" / libraries.parent.name / "site-packages"
    site.mkdir(parents=True)
    for entry in libraries.iterdir():
        of_project = entry.name.startswith(("__editable__", "lrm_objaverse"))
        if not of_project and re.split("[-.]", entry.name)[0] not in names:
            (site / entry.name).symlink_to(entry)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    base_python = Path(sys.base_prefix) / "bin"
    (folder / "pyvenv.cfg").write_text(
        f"home = {base_python}\ninclude-system-site-packages = false\n"
    )
    return folder / "bin" / "python"
