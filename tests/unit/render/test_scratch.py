"""Scratch folders of the dead are removed, those of the living and of strangers are not."""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from render.scratch import remove_orphans, scratch_folder


def test_only_the_folders_of_the_dead_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    orphan = tmp_path / f"lrm-{host}-{dead.pid}-work-abc_123"
    stranger = tmp_path / f"lrm-elsewhere-{dead.pid}-work-abc_123"
    unrelated = tmp_path / "lrm-notes"
    for folder in (orphan, stranger, unrelated):
        folder.mkdir()
        (folder / "file").write_text("")
    with scratch_folder("work") as mine:
        assert remove_orphans() == [orphan]
        assert Path(mine).is_dir()
    assert not orphan.exists()
    assert stranger.is_dir()
    assert unrelated.is_dir()
