"""Commands that are killed while they write leave nothing once the next commands have ended."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from core.paths.leftovers import LEFTOVER_SECONDS
from dataset.root import open_root
from pipelines.building.dataset_status import load_dataset_state
from tests.support.datasets import WITHOUT_BLENDER, BuiltDataset
from tests.support.lrm import run_lrm
from tests.support.paths import REPOSITORY

KILLED_AT = """
import os, signal, sys
number, *folders = sys.argv.pop(1).split(os.pathsep)
left = int(number)

def kill_at_last(event, arguments):
    global left
    if event in ("os.rename", "os.link") and str(arguments[0]).startswith(tuple(folders)):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill_at_last)
from pipelines.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""Runs `lrm`, and kills it before it gives the N-th file below some folders its final name."""
COMMANDS = {
    "compact": ["compact"],
    "snapshot": ["snapshot", "--name", "v1"],
    "report": ["report", "--out", "{out}/report.html"],
    "export": [
        "export",
        "--snapshot",
        "first",
        "--layout",
        "trellis",
        "--workers",
        "1",
        "--out",
        "{out}",
    ],
    "build": [
        "build",
        "--root",
        "{out}/new",
        "--source",
        "{source}",
        "--limit",
        "2",
        *WITHOUT_BLENDER,
    ],
}


def left_in(*folders: Path) -> list[str]:
    """Return the temporary files and folders below some folders."""
    names = [str(path) for folder in folders for path in folder.rglob("*")]
    return [name for name in names if ".tmp" in name or "#" in name or "lrm-scratch" in name]


@pytest.mark.parametrize(
    ("command", "step"), [*((command, 1) for command in COMMANDS), ("compact", 4), ("export", 4)]
)
def test_a_killed_command_leaves_nothing(
    command: str,
    step: int,
    built_dataset: BuiltDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    root, out, temporary = (tmp_path / name for name in ("root", "out", "temporary"))
    for folder in (out, temporary):
        folder.mkdir()
    shutil.copytree(built_dataset.root, root)
    if command == "compact":
        shutil.rmtree(root / "snapshots", ignore_errors=True)
        kept = load_dataset_state(open_root(str(root))).kept
        assert run_lrm("remove", "--root", root, next(iter(kept)).asset_id).code == 0
    if command == "export":
        assert run_lrm("snapshot", "--root", root, "--name", "first").code == 0
    words = [word.format(out=out, source=built_dataset.source) for word in COMMANDS[command]]
    words += [] if "--root" in words else ["--root", str(root)]
    folders = os.pathsep.join(map(str, (step, root, out, temporary)))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT, folders, *words],
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    if step == 1:
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert left_in(root, out, temporary)
    make_old(root, out)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for each in (words, ["compact", "--root", root], ["compact", "--root", out / "new"]):
        if Path(each[each.index("--root") + 1]).exists():
            again = run_lrm(*each)
            assert again.code == 0, again.err
    assert left_in(root, out, temporary) == []


def make_old(*folders: Path) -> None:
    """Make all files older than those that a command may be writing."""
    then = time.time() - LEFTOVER_SECONDS - 60
    for folder in folders:
        for path in folder.rglob("*"):
            os.utime(path, (then, then), follow_symlinks=False)
