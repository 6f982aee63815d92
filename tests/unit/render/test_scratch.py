"""Only scratch folders of dead processes of this host are removed."""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from render.scratch import remove_orphans, scratch_folder


def test_only_folders_of_dead_processes_of_this_host_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    orphan = tmp_path / f"lrm-{host}-{dead.pid}-work-abc_123"
    other_host = tmp_path / f"lrm-elsewhere-{dead.pid}-work-abc_123"
    unrelated = tmp_path / "lrm-notes"
    for folder in (orphan, other_host, unrelated):
        folder.mkdir()
        (folder / "file").write_text("")
    with scratch_folder("work") as current:
        assert remove_orphans() == [orphan]
        assert Path(current).is_dir()
    assert not orphan.exists()
    assert other_host.is_dir()
    assert unrelated.is_dir()
