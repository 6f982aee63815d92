"""The entries of a run's folder, each with a damage, and the verdict on a command's end."""

from collections.abc import Iterator
from pathlib import Path

from tests.support.damages import DAMAGES
from tests.support.lrm import Answer

__all__ = ["bad_end", "cells", "run_entries"]


def run_entries(run: Path) -> list[str]:
    """Return the files and folders of a run, by their paths below it."""
    return sorted(str(path.relative_to(run)) for path in run.rglob("*"))


def cells(run: Path) -> Iterator[tuple[int, str, str]]:
    """Yield a number, an entry of a run and one of the damages: each gets its turn."""
    damages = list(DAMAGES)
    for number, name in enumerate(run_entries(run)):
        yield number, name, damages[number % len(damages)]


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
