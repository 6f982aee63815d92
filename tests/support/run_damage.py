"""Damage to one file of a run's folder, applied to a copy that shares the other files."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.support.lrm import Answer

__all__ = ["DAMAGES", "bad_end", "cells", "copy_run", "damage", "run_entries"]

DAMAGES = ("deleted", "halved", "emptied", "zeroed", "folder", "dangling", "replaced")


def run_entries(run: Path) -> list[str]:
    """Return the files and folders of a run, by their paths below it."""
    return sorted(str(path.relative_to(run)) for path in run.rglob("*"))


def cells(run: Path) -> Iterator[tuple[int, str, str]]:
    """Yield a number, an entry of a run and one of the damages: each gets its turn."""
    for number, name in enumerate(run_entries(run)):
        yield number, name, DAMAGES[number % len(DAMAGES)]


def copy_run(run: Path, copy: Path) -> Path:
    """Copy a run; the files are shared until one of the copies replaces them."""
    shutil.copytree(run, copy, copy_function=os.link)
    return copy


def damage(path: Path, kind: str, other: Path) -> None:
    """Damage a file or folder; `other` is what it is replaced by."""
    data = path.read_bytes() if path.is_file() else b""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to(path.parent / "gone" / "away")
    elif kind == "replaced":
        path.write_bytes(other.read_bytes())
    elif kind != "deleted":
        path.write_bytes(
            {"halved": data[: len(data) // 2], "zeroed": bytes(len(data))}.get(kind, b"")
        )


def bad_end(answer: Answer, run: Path) -> str:
    """Return what is wrong with the end of a command on a damaged run; empty if nothing is."""
    lines = [line for line in answer.err.splitlines() if line.startswith("lrm ")]
    if "Traceback" in answer.err + answer.out or "internal error" in answer.err:
        return f"not one line: {answer.err}"
    if answer.code == 0:
        return f"an error of a command that succeeded: {lines}" if lines else ""
    if answer.code not in (1, 2):
        return f"exit code {answer.code}"
    # `lrm train --status --verify` lists the damaged files on standard output.
    if not lines and "damaged" in answer.out:
        return ""
    is_named = len(lines) == 1 and str(run) in lines[0]
    return "" if is_named else f"the file is not named: {lines}"
