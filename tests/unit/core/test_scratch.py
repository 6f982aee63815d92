"""Only scratch folders whose owner has ended are removed, by the next one that is created."""

import multiprocessing
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from core.paths import scratch
from core.paths.scratch import ScratchFolder, remove_orphans
from tests.support.paths import REPOSITORY

OWNER = """
import sys, time
from pathlib import Path
from core.paths.scratch import ScratchFolder
folders = [ScratchFolder("work"), ScratchFolder("compact", Path(sys.argv[1]))]
for folder in folders:
    Path(folder.name, "file").write_text("")
print(*(folder.name for folder in folders), flush=True)
time.sleep(60)
"""


def orphan_of(boot: str, folder: Path) -> Path:
    """Return the name of a scratch folder that was created during a boot of a kernel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "_boot", lambda: boot)
        with ScratchFolder("compact", folder) as name:
            return Path(name)


def start_owner(temporary: Path) -> tuple[subprocess.Popen, list[Path]]:
    """Start a process that owns two scratch folders in `temporary`; return both."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, temporary],
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, [Path(name) for name in process.stdout.readline().split()]


def test_folders_of_a_killed_process_are_removed_by_the_next_one(tmp_path: Path):
    process, folders = start_owner(tmp_path)
    try:
        assert len(folders) == 2
        assert remove_orphans(tmp_path) == []  # their owner runs
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert all(folder.is_dir() for folder in folders)
    with ScratchFolder("next", tmp_path) as name:
        assert list(tmp_path.iterdir()) == [Path(name)]
    assert list(tmp_path.iterdir()) == []


def test_only_unused_folders_of_this_user_are_removed(tmp_path: Path):
    target = tmp_path / "of a user"
    target.mkdir()
    (target / "file").write_text("")
    orphan = orphan_of(scratch._boot(), tmp_path)
    orphan_of(scratch._boot(), tmp_path).symlink_to(target)
    orphan_of(scratch._boot(), tmp_path).write_text("")
    # Another machine may share the disk, but not its locks.
    orphan_of("b00t00", tmp_path).mkdir()
    (tmp_path / "lrm-parts-0").mkdir()
    before = sorted(tmp_path.iterdir())
    (orphan / "in").mkdir(parents=True)
    (orphan / "in" / "link").symlink_to(target)
    with ScratchFolder("work", tmp_path) as name:
        orphan.mkdir(exist_ok=True)
        assert remove_orphans(tmp_path) == [orphan]
        assert Path(name).is_dir()
    assert sorted(tmp_path.iterdir()) == before
    assert (target / "file").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_stays(tmp_path: Path):
    other = orphan_of(scratch._boot(), tmp_path)
    other.mkdir()
    os.chown(other, 12345, 12345)
    assert remove_orphans(tmp_path) == []
    assert other.is_dir()


def test_a_fork_does_not_remove_the_folder_of_its_parent(tmp_path: Path):
    with ScratchFolder("work", tmp_path) as name:
        child = multiprocessing.get_context("fork").Process(target=weakref.finalize._exitfunc)
        child.start()
        child.join()
        assert child.exitcode == 0
        assert Path(name).is_dir()
        assert remove_orphans(tmp_path) == []


def test_a_folder_that_another_process_takes_before_it_is_locked_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another process may run `remove_orphans` between the creation and the lock."""
    taken = []
    open_ = os.open

    def open_late(path, *arguments):
        if len(taken) < 2 and Path(path).name.startswith("lrm-scratch-work"):
            taken.append(path)
            if len(taken) == 1:
                Path(path).rmdir()
        return open_(path, *arguments)

    monkeypatch.setattr(os, "open", open_late)
    with ScratchFolder("work", tmp_path) as name:
        assert taken[1:] == [Path(name)]
        assert list(tmp_path.iterdir()) == [Path(name)]


def test_a_folder_without_a_lock_is_never_taken_for_an_orphan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Some network file systems have no locks on folders."""

    def refuse(*_):
        raise OSError(9, "Bad file descriptor")

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", refuse)
        folder = ScratchFolder("work", tmp_path)
    assert remove_orphans(tmp_path) == []
    assert Path(folder.name).is_dir()
    folder.cleanup()
    assert list(tmp_path.iterdir()) == []
